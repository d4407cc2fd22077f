// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Passes everything, and counts what it saw: for link.test.ts and filter.test.ts. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} svc_seen SEC(".maps");

static void count(__u32 index)
{
	__u64 *seen = bpf_map_lookup_elem(&svc_seen, &index);

	if (seen)
		__sync_fetch_and_add(seen, 1);
}

SEC("tc")
int pass_tc(struct __sk_buff *ctx)
{
	count(0);
	return -1;
}

SEC("xdp.frags")
int pass_xdp(struct xdp_md *ctx)
{
	count(1);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
