/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A program that the verifier refuses: it follows a pointer that may be null. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} svc_nothing SEC(".maps");

SEC("syscall")
int fine(void *ctx)
{
	return 0;
}

SEC("syscall")
int careless(void *ctx)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&svc_nothing, &key);

	return *value;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
