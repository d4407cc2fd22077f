/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Writes a byte for each UDP socket of the reader's network namespace. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	void *udp_sk;
} __attribute__((preserve_access_index));

SEC("iter/udp")
int count(struct bpf_iter__udp *ctx)
{
	__u8 one = 1;

	if (ctx->udp_sk)
		bpf_seq_write(ctx->meta->seq, &one, sizeof(one));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
