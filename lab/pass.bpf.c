/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Lets every packet pass. On one end of a veth pair it lets the other end send from XDP: see
 * prepareXdp() in links.ts.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("xdp.frags")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
