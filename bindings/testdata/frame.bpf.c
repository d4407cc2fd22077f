/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Measures a frame, and counts how often. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} svc_runs SEC(".maps");

SEC("tc")
int measure(struct __sk_buff *ctx)
{
	__u32 key = 0;
	__u64 *runs = bpf_map_lookup_elem(&svc_runs, &key);

	if (runs)
		(*runs)++;
	return ctx->len;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
