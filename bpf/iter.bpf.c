/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Breaks connected UDP sockets whose endpoint has left (semantics §14.4): the application gets
 * ECONNABORTED and connects again. One run walks the sockets of one network namespace, and needs no
 * list of endpoints: what a socket remembers tells. Does not know which namespaces there are.
 */

/* Nothing is balanced here: balance()'s two questions have no answers, and half is not used. */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wundefined-internal"
#pragma clang diagnostic ignored "-Wunused-function"
#include "maps.h"
#include "balance.h"
#include "socket.h"
#pragma clang diagnostic pop

#define AF_INET	 2
#define AF_INET6 10

/* What is used of the kernel's own structs; libbpf finds the offsets in the running kernel. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	unsigned short skc_family;
	volatile unsigned char skc_state;
	__be16 skc_dport;
	__be32 skc_daddr;
	struct in6_addr skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
};

struct inet_sock {
	struct sock sk;
};

struct udp_sock {
	struct inet_sock inet;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
};

#pragma clang attribute pop

extern int bpf_sock_destroy(struct sock_common *sock) __ksym;

/* Where the socket is connected to. False if it is not. */
static __always_inline bool peer_of(const struct sock_common *sk, struct address *address,
				    __be16 *port)
{
	if (sk->skc_state != BPF_TCP_ESTABLISHED)
		return false;
	*port = sk->skc_dport;
	if (sk->skc_family == AF_INET) {
		address_from_ipv4(address, sk->skc_daddr);
		return true;
	}
	if (sk->skc_family != AF_INET6)
		return false;
	address->word[0] = sk->skc_v6_daddr.in6_u.u6_addr32[0];
	address->word[1] = sk->skc_v6_daddr.in6_u.u6_addr32[1];
	address->word[2] = sk->skc_v6_daddr.in6_u.u6_addr32[2];
	address->word[3] = sk->skc_v6_daddr.in6_u.u6_addr32[3];
	return true;
}

/* Whether the endpoint of a record is one still, be it for connected sockets alone. */
static __always_inline bool backend_serves(__u64 reference)
{
	__u32 id = reference;
	const struct backend *backend = bpf_map_lookup_elem(&svc_backends, &id);
	__u64 word = backend ? READ_ONCE(*(const __u64 *)&backend->port) : 0;

	return reference && word >> 32 == reference >> 32 && (word >> 24 & 0xff);
}

/* Writes one byte for each socket that it breaks. */
SEC("iter/udp")
int svc_break_udp(struct bpf_iter__udp *ctx)
{
	struct sock_common *sk = (struct sock_common *)ctx->udp_sk;
	const struct socket_set *set;
	struct address peer;
	struct reply reply = {};
	__u64 cookie;
	__be16 port;
	__u8 broken = 1;

	if (!sk || !peer_of(sk, &peer, &port))
		return 0;
	cookie = bpf_get_socket_cookie(sk);
	set = socket_set_lookup(cookie);
	if (!(set && place_reply(set, cookie, &peer, port, &reply)) &&
	    !storage_reply((struct bpf_sock *)sk, &peer, port, &reply))
		return 0;
	/* Connected straight to the endpoint, without a Service, since that was asked last. */
	if (!(address_difference(&reply.address, &peer) | (reply.port ^ port)))
		return 0;
	if (backend_serves(reply.reference))
		return 0;
	if (!bpf_sock_destroy(sk))
		bpf_seq_write(ctx->meta->seq, &broken, sizeof(broken));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
