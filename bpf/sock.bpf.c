/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The socket path: Service addresses become endpoint addresses when a socket connects or sends,
 * and endpoints become Services again where an application sees who answered. TCP and connected
 * UDP then run without any cost per packet. Loads once; what differs is configuration in rodata.
 */
#include <linux/errno.h>
#include <linux/in.h>
#include "maps.h"
#include "balance.h"
#include "socket.h"

#define AF_INET 2 /* in no header that a program can include */

/* Keep a record for TCP sockets too, so that getpeername() shows the Service. */
const volatile bool remember_tcp = false;

/* The network namespace of this node's own processes, by its cookie; 0: not known. */
const volatile __u64 node_netns = 0;

/* Whether clients that are not in svc_clients count as pods (semantics §6.4). */
const volatile bool pods_inside_ipv4 = true;
const volatile bool pods_inside_ipv6 = true;

/* An enum reaches BTF, and so the agent, only through a variable or field of its type. */
const volatile enum limit limit_for_btf = 0;
const volatile enum table table_for_btf = 0;
const volatile enum empty_action empty_action_for_btf = 0;
const volatile enum reason reason_for_btf = 0;
const volatile enum flow_protocol flow_protocol_for_btf = 0;
const volatile enum flow_kind flow_kind_for_btf = 0;
const volatile enum flow_path flow_path_for_btf = 0;
const volatile enum flow_state flow_state_for_btf = 0;

static __always_inline void peer_get(const struct bpf_sock_addr *ctx, bool ipv6,
				     struct address *address)
{
	if (!ipv6) {
		address_from_ipv4(address, ctx->user_ip4);
		return;
	}
	address->word[0] = ctx->user_ip6[0];
	address->word[1] = ctx->user_ip6[1];
	address->word[2] = ctx->user_ip6[2];
	address->word[3] = ctx->user_ip6[3];
}

static __always_inline void peer_set(struct bpf_sock_addr *ctx, bool ipv6,
				     const struct address *address, __be16 port)
{
	ctx->user_port = port;
	if (!ipv6) {
		ctx->user_ip4 = address->word[3];
		return;
	}
	ctx->user_ip6[0] = address->word[0];
	ctx->user_ip6[1] = address->word[1];
	ctx->user_ip6[2] = address->word[2];
	ctx->user_ip6[3] = address->word[3];
}

static __always_inline __u32 request_hash(const struct request *request)
{
	return bpf_get_prandom_u32();
}

/* All sockets of one network namespace are one client. */
static __always_inline void request_client(const struct request *request, struct address *client)
{
	__u64 cookie = bpf_get_netns_cookie(request->context);

	client->word[0] = cookie;
	client->word[1] = cookie >> 32;
	client->word[2] = 0;
	client->word[3] = 0;
}

/* What the agent knows of a network namespace. False if nothing. */
static __always_inline bool client_lookup(__u64 cookie, struct client *copy)
{
	const struct client *client = bpf_map_lookup_elem(&svc_clients, &cookie);

	if (!client)
		return false;
	*copy = *client;
	barrier_var(client); /* the cookie is written first: what was read before it is its own */
	return READ_ONCE(client->cookie) == cookie;
}

static __always_inline bool request_inside(const struct request *request)
{
	__u64 cookie = bpf_get_netns_cookie(request->context);
	bool ipv4 = address_is_ipv4(&request->key.address);
	struct client client;

	if (cookie == node_netns)
		return true;
	if (!client_lookup(cookie, &client))
		return ipv4 ? pods_inside_ipv4 : pods_inside_ipv6;
	return ipv4 ? client.inside_ipv4 : client.inside_ipv6;
}

/* False for zeros, and for the IPv4 address of zeros. */
static __always_inline bool address_is_set(const struct address *address)
{
	return address->word[0] | address->word[1] | (address->word[2] & ~bpf_htonl(0xffff)) |
	       address->word[3];
}

/* The address that a socket is bound to, or has sent from before. False if there is none. */
static __always_inline bool bound_address(const struct bpf_sock_addr *ctx, struct address *address)
{
	const struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return false;
	/* Volatile: clang 14 would join the two loads of a word into one of a computed field. */
	address_from_ipv4(address, READ_ONCE(sk->src_ip4));
	if (sk->family != AF_INET)
		for (int i = 0; i < 4; i++)
			address->word[i] = READ_ONCE(sk->src_ip6[i]);
	return address_is_set(address);
}

/* A pod's address is the one that the agent knows, since the kernel has not chosen yet. */
static __always_inline enum source request_source(const struct request *request,
						  struct address *address)
{
	struct client client;
	__u64 cookie;

	if (bound_address(request->context, address))
		return SOURCE_ADDRESS;
	cookie = bpf_get_netns_cookie(request->context);
	if (cookie == node_netns)
		return SOURCE_NODE;
	if (!client_lookup(cookie, &client))
		return SOURCE_UNKNOWN;
	*address = address_is_ipv4(&request->key.address) ? client.ipv4 : client.ipv6;
	return address_is_set(address) ? SOURCE_ADDRESS : SOURCE_UNKNOWN;
}

/* A refusal that the application sees from connect() and sendmsg() alike (semantics §7). */
static __always_inline int answer_empty(enum verdict verdict, const struct choice *choice)
{
	refusal_count(choice);
	bpf_set_retval(verdict == VERDICT_REFUSE ? -ECONNREFUSED : -EHOSTUNREACH);
	return 0;
}

/*
 * Whether a datagram goes where its socket is connected to. The kernel names that address to
 * sendmsg4 for every datagram of an IPv6 socket with an IPv4-mapped peer.
 */
static __always_inline bool is_peer(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->state == BPF_TCP_ESTABLISHED && sk->dst_ip4 == ctx->user_ip4 &&
	       sk->dst_port == ctx->user_port;
}

/* Whether a socket has no port yet: then it has neither sent nor connected, and remembers nothing.
 */
static __always_inline bool is_fresh(struct bpf_sock_addr *ctx)
{
	return ctx->sk && !ctx->sk->src_port;
}

/*
 * Whether a node port of a loopback address, if that is one, is this socket's to ask: in the node's
 * own network namespace, and not from loopback, where no endpoint would answer to (semantics §9.5).
 */
static __always_inline bool may_ask(const struct request *request, __u64 frontend)
{
	struct address source;

	if (frontend_kind(frontend) != FRONTEND_NODE_PORT ||
	    !address_is_martian(&request->key.address))
		return true;
	return bpf_get_netns_cookie(request->context) == node_netns &&
	       !(bound_address(request->context, &source) && address_is_martian(&source));
}

/*
 * One connect or send: Service address in, endpoint address out. A UDP socket stays with the
 * endpoint it got; a TCP connection is one choice. 1 lets the call go on, 0 fails it.
 */
static __always_inline int translate(struct bpf_sock_addr *ctx, bool ipv6, bool sending)
{
	bool udp = ctx->protocol == IPPROTO_UDP;
	struct request request = { .context = ctx };
	struct choice choice = {};
	enum verdict verdict;
	__u64 frontend;

	if (!udp && ctx->protocol != IPPROTO_TCP)
		return 1;
	peer_get(ctx, ipv6, &request.key.address);
	request.key.port = ctx->user_port;
	request.key.protocol = ctx->protocol;
	frontend = frontend_find(&request.key);
	if (frontend_is_left(frontend)) {
		if (udp && filter_lookup(&request.key.address) & FILTER_ENDPOINT &&
		    !(sending && !ipv6 && is_peer(ctx)))
			socket_direct(ctx, &request.key);
		return 1;
	}
	if (!may_ask(&request, frontend))
		return 1;
	if (udp && !is_fresh(ctx))
		request.keep = socket_recall(ctx, &request.key);
	verdict = balance(&request, frontend, &choice);
	if (verdict == VERDICT_NONE)
		return 1; /* the frontend has just gone, or the packet path decides */
	if (verdict != VERDICT_FORWARD)
		return answer_empty(verdict, &choice);
	if (choice.reference != request.keep)
		choice_count(&choice);
	if (udp ? choice.reference != request.keep : remember_tcp)
		socket_remember(ctx, &request.key, &choice);
	peer_set(ctx, ipv6, &choice.address, choice.port);
	return 1;
}

/* The way back: an endpoint's address becomes the Service address that this socket asked. */
static __always_inline int translate_back(struct bpf_sock_addr *ctx, bool ipv6)
{
	struct address sender;
	struct reply reply = {};

	peer_get(ctx, ipv6, &sender);
	if (socket_reply(ctx, &sender, ctx->user_port, &reply))
		peer_set(ctx, ipv6, &reply.address, reply.port);
	return 1;
}

SEC("cgroup/connect4")
int svc_connect4(struct bpf_sock_addr *ctx)
{
	return translate(ctx, false, false);
}

SEC("cgroup/connect6")
int svc_connect6(struct bpf_sock_addr *ctx)
{
	return translate(ctx, true, false);
}

SEC("cgroup/sendmsg4")
int svc_sendmsg4(struct bpf_sock_addr *ctx)
{
	return translate(ctx, false, true);
}

SEC("cgroup/sendmsg6")
int svc_sendmsg6(struct bpf_sock_addr *ctx)
{
	return translate(ctx, true, true);
}

SEC("cgroup/recvmsg4")
int svc_recvmsg4(struct bpf_sock_addr *ctx)
{
	return translate_back(ctx, false);
}

SEC("cgroup/recvmsg6")
int svc_recvmsg6(struct bpf_sock_addr *ctx)
{
	return translate_back(ctx, true);
}

SEC("cgroup/getpeername4")
int svc_getpeername4(struct bpf_sock_addr *ctx)
{
	return translate_back(ctx, false);
}

SEC("cgroup/getpeername6")
int svc_getpeername6(struct bpf_sock_addr *ctx)
{
	return translate_back(ctx, true);
}

SEC("cgroup/sock_release")
int svc_sock_release(struct bpf_sock *sk)
{
	if (sk->protocol == IPPROTO_UDP || (remember_tcp && sk->protocol == IPPROTO_TCP))
		place_free(SOCKET_COOKIE(sk, sk));
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
