/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Somebody else's programs on the same devices: they count what they see and pass it on. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} foreign_seen SEC(".maps");

static __always_inline void count(__u32 index)
{
	__u64 *seen = bpf_map_lookup_elem(&foreign_seen, &index);

	if (seen)
		__sync_fetch_and_add(seen, 1);
}

SEC("tc")
int foreign_first(struct __sk_buff *ctx)
{
	count(0);
	return -1;
}

SEC("tc")
int foreign_last(struct __sk_buff *ctx)
{
	count(1);
	return 0;
}

SEC("xdp.frags")
int foreign_xdp(struct xdp_md *ctx)
{
	count(2);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
