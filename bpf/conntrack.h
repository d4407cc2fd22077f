/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the kernel's connection tracking knows of a packet. Decides nothing. TC alone.
 */
#ifndef BPFSVC_CONNTRACK_H
#define BPFSVC_CONNTRACK_H

#include "maps.h"
#include "packet.h"
#include "passage.h"

#define TRACKED_HERE  (-1) /* in this network namespace */
#define TRACKED_REPLY 1	   /* enum ip_conntrack_dir */

/* struct bpf_ct_opts of Linux 6.1; later ones take it as it was. */
struct tracked {
	__s32 netns;
	__s32 error;
	__u8 protocol;
	__u8 direction;
	__u8 reserved[2];
};

struct nf_conn {
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *ctx, struct bpf_sock_tuple *tuple,
					 __u32 tuple_bytes, struct tracked *tracked,
					 __u32 tracked_bytes) __ksym __weak;
extern void bpf_ct_release(struct nf_conn *connection) __ksym __weak;

/*
 * Whether a packet of TCP or UDP is a reply to what this node has sent, masqueraded or from a
 * socket of its own. Not static, so that the verifier follows it once: Linux 6.1 does even if
 * nothing calls it.
 */
__noinline int tracked_as_reply(struct __sk_buff *ctx, const struct tuple *tuple)
{
	struct tracked tracked = { .netns = TRACKED_HERE };
	struct bpf_sock_tuple key = {};
	struct nf_conn *connection;
	__u32 bytes;

	if (!asks_conntrack || !tuple || tuple->protocol > FLOW_UDP)
		return false;
	bytes = sock_tuple_fill(&key, tuple);
	tracked.protocol = protocol_to_ip(tuple->protocol);
	connection = bpf_skb_ct_lookup(ctx, &key, bytes, &tracked, sizeof(tracked));
	if (!connection)
		return false;
	bpf_ct_release(connection);
	return tracked.direction == TRACKED_REPLY;
}

#endif
