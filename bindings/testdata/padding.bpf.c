/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A struct with a byte that has no name, which layouts refuse; never loaded. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct gap {
	__u8 first;
	__u16 second;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gap);
} svc_gap SEC(".maps");
