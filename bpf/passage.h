/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet that begins a connection: which endpoint it gets, whether its source must become one of
 * this node's, which way and port that means, and both halves of its flow. The same for XDP and TC;
 * touches no packet.
 */
#ifndef BPFSVC_PASSAGE_H
#define BPFSVC_PASSAGE_H

#include "maps.h"
#include "packet.h"
#include "balance.h"
#include "flow.h"
#include "forward.h"

/* Rewrite sources as kube-proxy does (semantics §10.1 to §10.4), not only where replies need it. */
const volatile bool masquerade_always = false;

/* Rewrite the sources of all that goes to cluster IPs (§10.4). */
const volatile bool masquerade_all = false;

#define FLOW_OTHER_KIND ((FLOW_FORWARD ^ FLOW_REVERSE) << FLOW_KIND_SHIFT)
#define PORT_ATTEMPTS	16
#define LOWEST_PORT	1024

/* A packet in a hook, and what becomes of it. */
struct passage {
	struct packet packet;
	__u32 ifindex;	     /* the device that it came in by, or is about to leave by */
	__u16 mac[3];	     /* where the frame that it came in by is addressed to */
	bool leaving;	     /* at egress */
	bool is_inside;	     /* answers to its source pass through this node */
	bool is_pod;	     /* by its device */
	struct flow flow;    /* the flow that it belongs to, as it was read or made */
	struct tuple wanted; /* what its addresses and ports become */
	struct choice choice;
};

/*
 * Where the passage of the packet at hand lies, since it is too large for the stack: a program is
 * not interrupted by another one of its kind on its CPU.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct passage);
} passages SEC(".maps");

static __always_inline struct passage *passage_get(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&passages, &index);
}

static __always_inline const struct packet *request_packet(const struct request *request)
{
	return request->context;
}

/*
 * Spreads connections over a table: the same on every node, whatever its flows' keys are, so that a
 * connection that comes in by another node gets the same endpoint there.
 */
static __always_inline __u32 request_hash(const struct request *request)
{
	static const __u32 key[10] = { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822,
				       0x299f31d0, 0x082efa98, 0xec4e6c89, 0x452821e6, 0x38d01377 };

	return flow_hash(&request_packet(request)->tuple, key) >> 32;
}

static __always_inline void request_client(const struct request *request, struct address *client)
{
	*client = request_packet(request)->tuple.source;
}

static __always_inline enum source request_source(const struct request *request,
						  struct address *address)
{
	*address = request_packet(request)->tuple.source;
	return SOURCE_ADDRESS;
}

/* Whether a pod sent it, as far as that can be told at all (semantics §10.8). */
static __always_inline bool passage_is_pod(const struct passage *passage, const struct node *node)
{
	const struct address *source = &passage->packet.tuple.source;
	bool ipv4 = address_is_ipv4(source);

	if (!(ipv4 ? node->detects_ipv4 : node->detects_ipv6))
		return false;
	if (node->detects_devices)
		return passage->is_pod;
	return !range_difference(&node->pods[ipv4 ? 0 : 1], source);
}

/* A pod or a process of this node (semantics §6.3). */
static __always_inline bool request_inside(const struct request *request)
{
	const struct passage *passage = request->context;
	const struct node *node = node_get();

	if (!node)
		return false;
	if (passage_is_pod(passage, node))
		return true;
	return filter_lookup(&passage->packet.tuple.source) & FILTER_NODE &&
	       source_find(&passage->packet.tuple.source);
}

/* Whether kube-proxy would rewrite the source, hairpins apart. */
static __always_inline bool masquerades(const struct passage *passage)
{
	const struct node *node = node_get();
	__u32 id = passage->choice.service;
	const struct service *service;

	if (!node || filter_lookup(&passage->choice.address) & FILTER_NODE)
		return false; /* an endpoint on the node's own network (§10.6) */
	if (passage->choice.table == TABLE_INTERNAL) {
		bool ipv4 = address_is_ipv4(&passage->packet.tuple.source);

		if (masquerade_all)
			return true;
		return masquerade_always && (ipv4 ? node->detects_ipv4 : node->detects_ipv6) &&
		       !passage_is_pod(passage, node);
	}
	if (!masquerade_always)
		return false;
	service = bpf_map_lookup_elem(&svc_services, &id);
	return service && !service->external_local;
}

/* The way to the endpoint that was chosen: as its row remembers it, or as the kernel says. */
static __always_inline bool backend_way(struct PROGRAM_CONTEXT *ctx, struct passage *passage,
					struct way *way)
{
	__u32 id = passage->choice.reference;
	struct backend *backend = bpf_map_lookup_elem(&svc_backends, &id);
	struct hop *hop;

	if (!backend)
		return false;
	hop = hop_lookup(READ_ONCE(backend->hop));
	if (hop) {
		way->hop = backend->hop;
		way->ifindex = hop->ifindex;
		way->next = hop->next;
		way->mtu = hop->mtu;
		way->source = hop->source;
		way->sends_frames = hop->sends_frames;
		if (hop_lookup(way->hop) == hop)
			return true;
	}
	passage->wanted.source = passage->packet.tuple.source;
	passage->wanted.destination = passage->choice.address;
	if (!fib_find(ctx, passage->ifindex, &passage->wanted, way))
		return false;
	backend->hop = way->hop;
	return true;
}

/*
 * Whether a socket of this node has the connection that a rewritten source would make. Not static,
 * so that the verifier follows it once.
 */
__noinline int port_is_taken(struct PROGRAM_CONTEXT *ctx, const struct tuple *reverse)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size;
	bool ipv4;

	if (!reverse || reverse->protocol == FLOW_SCTP)
		return false;
	ipv4 = address_is_ipv4(&reverse->source);
	size = ipv4 ? sizeof(tuple.ipv4) : sizeof(tuple.ipv6);
	if (ipv4) {
		tuple.ipv4.saddr = reverse->source.word[3];
		tuple.ipv4.daddr = reverse->destination.word[3];
		tuple.ipv4.sport = reverse->source_port;
		tuple.ipv4.dport = reverse->destination_port;
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, reverse->source.word, 16);
		__builtin_memcpy(tuple.ipv6.daddr, reverse->destination.word, 16);
		tuple.ipv6.sport = reverse->source_port;
		tuple.ipv6.dport = reverse->destination_port;
	}
	if (reverse->protocol == FLOW_TCP)
		sk = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/* Whether a client's own port may stay when its address becomes this node's: the host and node
 * ports have none such. */
static __always_inline bool port_is_foreign(__u16 port, const struct node *node)
{
	return port >= LOWEST_PORT &&
	       (__u16)(port - node->host_first) > (__u16)(node->host_last - node->host_first) &&
	       (__u16)(port - node->node_port_first) >
		       (__u16)(node->node_port_last - node->node_port_first);
}

/* The port to try: the client's own first, then others in an order of the connection's own. */
static __always_inline __be16 port_at(__u32 attempt, const struct passage *passage,
				      const struct node *node)
{
	__u32 hash = tuple_ports(&passage->packet.tuple) * 0x9e3779b1 +
		     address_hash(&passage->packet.tuple.source);

	if (!attempt || !node->nat_count)
		return passage->packet.tuple.source_port;
	hash = sum_mix(hash + attempt * 0x85ebca77);
	return bpf_htons(node->nat_first + (__u32)((__u64)hash * node->nat_count >> 32));
}

/*
 * Inserts both halves of passage->flow, the reverse one first: it must be the only one of its kind.
 * If the client's own port is taken, by a socket of this node or by a flow, another one stands for
 * it. Not static, so that the verifier follows it once.
 */
__noinline int passage_insert(struct PROGRAM_CONTEXT *ctx, struct passage *passage)
{
	const struct node *node = node_get();
	int result = FLOW_EXISTS;
	struct flow *flow;
	bool rewrites;
	__u16 hop;

	if (!passage || !node)
		return FLOW_LOST;
	flow = &passage->flow;
	rewrites = flow_source(flow->lock);
	hop = flow->hop;
	flow->hop = 0; /* the way back is found by the first reply */
	flow->lock ^= FLOW_OTHER_KIND;
#pragma nounroll
	for (__u32 attempt = 0; attempt < PORT_ATTEMPTS; attempt = loop_next(attempt)) {
		flow->source_port = port_at(attempt, passage, node);
		if (!attempt && rewrites && node->nat_count &&
		    !port_is_foreign(bpf_ntohs(flow->source_port), node))
			continue;
		flow_tuple(flow, flow->lock, FLOW_REVERSE, node, &passage->wanted);
		if (rewrites && port_is_taken(ctx, &passage->wanted))
			continue;
		result = flow_insert_alone(flow, &passage->wanted);
		if (result != FLOW_EXISTS)
			break;
	}
	flow->lock ^= FLOW_OTHER_KIND;
	flow->hop = hop;
	if (result != FLOW_INSERTED || flow_insert(flow, &passage->packet.tuple) == FLOW_INSERTED)
		return result;
	flow_remove(flow, flow->lock, FLOW_REVERSE);
	return FLOW_LOST;
}

/* Replies of this endpoint are looked up at egress from now on. */
static __always_inline void answering_add(const struct address *address, __be16 port)
{
	__u32 position = sum_mix(address_sum(address) + port * 0x165667b1) % 65536;
	__u32 index = position / 64;
	__u64 *word = bpf_map_lookup_elem(&svc_answering, &index), bit = 1ULL << position % 64;

	if (word && !(READ_ONCE(*word) & bit))
		__sync_fetch_and_or(word, bit);
}

static __always_inline bool answering_has(const struct address *address, __be16 port)
{
	__u32 position = sum_mix(address_sum(address) + port * 0x165667b1) % 65536;
	__u32 index = position / 64;
	const __u64 *word = bpf_map_lookup_elem(&svc_answering, &index);

	return word && READ_ONCE(*word) >> position % 64 & 1;
}

/*
 * The flow of a packet to the endpoint that was chosen. VERDICT_RETRY: the kernel knows no way. Not
 * static, so that the verifier follows it once.
 */
__noinline int passage_plan(struct PROGRAM_CONTEXT *ctx, struct passage *passage)
{
	const struct choice *choice;
	const struct backend *backend;
	const struct tuple *tuple;
	enum flow_path path;
	struct way way = {};
	struct flow *flow;
	__u32 source = 0, id;
	bool rewrites;

	if (!passage)
		return VERDICT_NONE;
	choice = &passage->choice;
	tuple = &passage->packet.tuple;
	flow = &passage->flow;
	id = choice->reference;
	backend = bpf_map_lookup_elem(&svc_backends, &id);
	if (!backend)
		return VERDICT_RETRY;
	rewrites = !address_difference(&tuple->source, &choice->address) || masquerades(passage) ||
		   (!passage->is_inside && !passage->leaving && !backend->local);
	path = passage->leaving ? FLOW_NODE : rewrites ? FLOW_REDIRECT : FLOW_STACK;
	if (path != FLOW_STACK) {
		if (!backend_way(ctx, passage, &way))
			return VERDICT_RETRY;
		if (passage->leaving)
			rewrites |= way.source && source_find(&tuple->source) != way.source;
		if (rewrites && !way.source)
			return VERDICT_RETRY;
		source = rewrites ? way.source : 0;
	}
	flow->lock = flow_lock(FLOW_FORWARD, tuple->protocol, path, source);
	flow->last_used = flow_now();
	flow->hop = way.hop;
	flow->client_port = tuple->source_port;
	flow->frontend_port = tuple->destination_port;
	flow->backend_port = choice->port;
	flow->source_port = tuple->source_port;
	flow->client = tuple->source;
	flow->frontend = tuple->destination;
	flow->backend = choice->address;
	return VERDICT_FORWARD;
}

/* Whether any Service or connection may have to do with a packet's destination. */
static __always_inline bool packet_is_ours(const struct packet *packet)
{
	const struct tuple *tuple = &packet->tuple;
	__u32 filter = filter_lookup(&tuple->destination);

	if (filter & FILTER_NODE) {
		const struct node *node = node_get();
		__u16 port = bpf_ntohs(tuple->destination_port);

		if (filter_lookup(&tuple->source) & FILTER_ENDPOINT)
			return true;
		return node && port >= node->node_port_first && port <= node->node_port_last;
	}
	if (filter & (FILTER_FRONTEND | FILTER_WILDCARD))
		return true;
	return range_contains(&tuple->destination);
}

/*
 * Whether packets that meet passage->flow are translated at this hook: requests where they come in,
 * replies where they leave if the stack is to see the endpoint.
 */
static __always_inline bool passage_may_translate(const struct passage *passage)
{
	__u32 lock = passage->flow.lock, path = flow_path(lock);

	if (flow_kind(lock) == FLOW_FORWARD)
		return passage->leaving ? path == FLOW_NODE : path != FLOW_NODE;
	return passage->leaving ? path == FLOW_STACK : path == FLOW_REDIRECT || path == FLOW_NODE;
}

/* Which of this device's traffic concerns this node, and how. False: it is another host's. */
static __always_inline bool passage_admit(struct passage *passage)
{
	const struct device *device = device_lookup(passage->ifindex);
	const __u16 *own, *mac = passage->mac;

	passage->is_inside = !device || device->is_inside;
	passage->is_pod = device && device->is_pod;
	if (!device || passage->leaving || !device->is_uplink)
		return true;
	own = (const __u16 *)device->mac;
	return !((own[0] ^ mac[0]) | (own[1] ^ mac[1]) | (own[2] ^ mac[2]));
}

/* What balance() says of a packet. Not static, so that the verifier follows it once. */
__noinline int passage_balance(struct passage *passage)
{
	struct request request = { .context = passage };
	__u64 frontend;

	if (!passage)
		return VERDICT_NONE;
	request.key.address = passage->packet.tuple.destination;
	request.key.port = passage->packet.tuple.destination_port;
	request.key.protocol = protocol_to_ip(passage->packet.tuple.protocol);
	frontend = frontend_find(&request.key);
	return frontend_is_left(frontend) ? VERDICT_NONE :
					    balance(&request, frontend, &passage->choice);
}

/*
 * Begins the connection of a packet without a flow: VERDICT_FORWARD with passage->flow inserted;
 * VERDICT_REFUSE or VERDICT_DROP with a reason, not counted yet; VERDICT_NONE: leave it alone;
 * VERDICT_RETRY: the kernel knows no way.
 */
static __always_inline int passage_begin(struct PROGRAM_CONTEXT *ctx, struct passage *passage)
{
	int verdict = passage_balance(passage);

	if (verdict != VERDICT_FORWARD)
		return verdict;
	if (passage->packet.tcp_flags & TCP_RST) {
		passage->choice.reason = REASON_NO_CONNECTION;
		return VERDICT_DROP;
	}
	verdict = passage_plan(ctx, passage);
	if (verdict != VERDICT_FORWARD)
		return verdict;
	if (flow_path(passage->flow.lock) == FLOW_STACK)
		answering_add(&passage->flow.backend, passage->flow.backend_port);
	switch (passage_insert(ctx, passage)) {
	case FLOW_INSERTED:
		choice_count(&passage->choice);
		return VERDICT_FORWARD;
	case FLOW_EXISTS:
		passage->choice.reason = REASON_PORTS_EXHAUSTED;
		return VERDICT_REFUSE;
	}
	passage->choice.reason = REASON_FLOW_LOST;
	return VERDICT_DROP;
}

#endif
