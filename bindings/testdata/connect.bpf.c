/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sends connections for one port to another, and counts them; a program to run by hand beside. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

const volatile __u16 asked_port = 0;
const volatile __u16 served_port = 0;
const volatile __s32 offset = 0;
const volatile __u8 bytes[3] = {};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} svc_hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} svc_storage SEC(".maps");

SEC("cgroup/connect4")
int redirect(struct bpf_sock_addr *ctx)
{
	__u32 key = 0;
	__u64 *hits = bpf_map_lookup_elem(&svc_hits, &key);

	if (ctx->user_port != bpf_htons(asked_port))
		return 1;
	if (hits)
		__sync_fetch_and_add(hits, 1);
	ctx->user_port = bpf_htons(served_port);
	return 1;
}

struct sum {
	__u32 left;
	__s32 result;
};

SEC("syscall")
int add(struct sum *ctx)
{
	ctx->result = ctx->left + offset + bytes[2];
	return bytes[0];
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
