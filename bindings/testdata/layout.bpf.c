/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every kind of field that a shared struct may have, for the readers of BTF; never loaded. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum color {
	COLOR_RED = 0,
	COLOR_GREEN = 7,
} __attribute__((packed));

enum loose {
	LOOSE_ONE = 1,
};

enum lonely {
	LONELY_TWO = 2,
};

struct place {
	__be32 word[4];
};

struct inner {
	__s16 below;
	__be16 port;
};

struct sample_key {
	struct place place;
	__be16 port;
	__u8 tag[3];
	__u8 reserved;
	__u16 reserved_2;
};

struct sample {
	struct bpf_spin_lock lock;
	__be32 network;
	__u64 big;
	__s64 negative;
	__u64 pair[2];
	enum color color;
	__s8 tiny;
	__u16 reserved;
	struct inner inner;
	struct inner list[3];
	__u32 many[17];
	volatile const __u32 guarded;
	__u8 name[8];
	__u32 last_part;
	enum loose loose;
	__u32 reserved_2;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 12);
	__type(key, struct sample_key);
	__type(value, struct sample);
} svc_sample SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__uint(key_size, 4);
	__uint(value_size, 6);
} svc_plain SEC(".maps");

/* An enum may reach BTF by a variable alone. */
const volatile enum lonely lonely = 0;
const volatile __u8 first = 1;
const volatile __u64 second = 2;
