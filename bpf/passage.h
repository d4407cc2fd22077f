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

/* How endpoints on other nodes are reached by clients from outside. */
enum forwarding {
	FORWARD_SNAT = 0,   /* from an address of this node: replies come back here */
	FORWARD_DSR = 1,    /* in a tunnel to the endpoint, whose node answers the client itself */
	FORWARD_HYBRID = 2, /* TCP in the tunnel, the rest as with FORWARD_SNAT */
};

const volatile __u32 forwarding = FORWARD_SNAT;

/* Whether the kernel tells what its connection tracking knows (nf_conntrack). */
const volatile bool asks_conntrack = false;

#define FLOW_OTHER_KIND ((FLOW_FORWARD ^ FLOW_REVERSE) << FLOW_KIND_SHIFT)
#define PORT_ATTEMPTS	16
#define LOWEST_PORT	1024

/*
 * A tunnel of direct server return: IP in IP, addressed to the endpoint itself, so that any CNI
 * knows the way. The endpoint's port is the outer header's identification, or the low bits of its
 * flow label: all nodes have the same Services, but one may know an endpoint before another. Of a
 * packet that was cut into segments only the first has the port there.
 */
struct tunnel {
	struct address endpoint;
	__be16 port;
	bool is_open;
};

/* What svc_devices said of a device not long ago: to ask for each packet costs too much. */
struct heard {
	__u64 mac; /* and two bytes that do not count */
	__u32 ifindex;
	__u32 asked; /* see flow_now() */
};

/* A packet in a hook, and what becomes of it. */
struct passage {
	struct packet packet;
	__u32 ifindex;	     /* the device that it came in by, or is about to leave by */
	bool leaving;	     /* at egress */
	bool is_inside;	     /* answers to its source pass through this node */
	bool is_pod;	     /* by its device */
	struct flow flow;    /* the flow that it belongs to, as it was read or made */
	__u64 hash;	     /* see flow_hash(), of the packet's tuple */
	struct tuple wanted; /* what its addresses and ports become */
	struct choice choice;
	struct tunnel tunnel; /* what it came in, if in a tunnel of another node */
	struct heard heard;   /* XDP's own: the device that packets before came in by */
	struct packet inner;  /* what an ICMP error quotes */
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
	return passage_is_pod(passage, node) || address_is_own(&passage->packet.tuple.source);
}

/* Whether a packet came in from where it cannot come from: the stack drops it for that. */
static __always_inline bool passage_is_forged(const struct passage *passage)
{
	const struct address *source = &passage->packet.tuple.source;

	return !passage->leaving && (address_is_martian(source) || address_is_own(source));
}

/* Whether kube-proxy would rewrite the source, hairpins apart. */
static __always_inline bool masquerades(const struct passage *passage)
{
	const struct node *node = node_get();
	__u32 id = passage->choice.service;
	const struct service *service;

	if (!node || !(masquerade_always || masquerade_all))
		return false;
	if (address_is_own(&passage->choice.address))
		return false; /* an endpoint on the node's own network (§10.6) */
	if (passage->choice.table == TABLE_INTERNAL) {
		bool ipv4 = address_is_ipv4(&passage->packet.tuple.source);

		if (masquerade_all)
			return true;
		return (ipv4 ? node->detects_ipv4 : node->detects_ipv6) &&
		       !passage_is_pod(passage, node);
	}
	if (!masquerade_always)
		return false;
	service = bpf_map_lookup_elem(&svc_services, &id);
	return service && !service->external_local;
}

/* The way to the endpoint that was chosen: as its row remembers it, or as the kernel says. For a
 * flow that passage_fill() has filled. */
static __always_inline bool backend_way(struct PROGRAM_CONTEXT *ctx, struct passage *passage,
					struct way *way)
{
	__u32 id = passage->choice.reference;
	struct backend *backend = bpf_map_lookup_elem(&svc_backends, &id);
	__u16 now = passage->flow.last_used;
	struct hop *hop;
	bool trusted;

	if (!backend)
		return false;
	trusted = hop_is_trusted(backend->hop_used, now);
	if (backend->hop_used != now)
		backend->hop_used = now;
	hop = hop_lookup(READ_ONCE(backend->hop));
	if (hop && trusted) {
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

/* A tuple as the kernel's lookups want it; returns how many bytes of it count. */
static __always_inline __u32 sock_tuple_fill(struct bpf_sock_tuple *key, const struct tuple *tuple)
{
	if (address_is_ipv4(&tuple->source)) {
		key->ipv4.saddr = tuple->source.word[3];
		key->ipv4.daddr = tuple->destination.word[3];
		key->ipv4.sport = tuple->source_port;
		key->ipv4.dport = tuple->destination_port;
		return sizeof(key->ipv4);
	}
	__builtin_memcpy(key->ipv6.saddr, tuple->source.word, 16);
	__builtin_memcpy(key->ipv6.daddr, tuple->destination.word, 16);
	key->ipv6.sport = tuple->source_port;
	key->ipv6.dport = tuple->destination_port;
	return sizeof(key->ipv6);
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

	if (!reverse || reverse->protocol == FLOW_SCTP)
		return false;
	size = sock_tuple_fill(&tuple, reverse);
	if (reverse->protocol == FLOW_TCP)
		sk = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/* Whether frontends on this node's own addresses may have a port. */
static __always_inline bool port_is_served(__u16 port, const struct node *node)
{
	return (__u16)(port - node->node_port_first) <=
	       (__u16)(node->node_port_last - node->node_port_first);
}

/* Whether a client's own port may stay when its address becomes this node's: the host and node
 * ports have none such. */
static __always_inline bool port_is_foreign(__u16 port, const struct node *node)
{
	return port >= LOWEST_PORT &&
	       (__u16)(port - node->host_first) > (__u16)(node->host_last - node->host_first) &&
	       !port_is_served(port, node);
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
	__u64 hash;
	__u16 hop;

	if (!passage || !node)
		return FLOW_LOST;
	flow = &passage->flow;
	if (flow_path(flow->lock) == FLOW_TUNNEL) /* no reply comes by here */
		return flow_insert(flow, passage->hash);
	hop = flow->hop;
	flow->hop = 0; /* the way back is found by the first reply */
	flow->lock ^= FLOW_OTHER_KIND;
#pragma nounroll
	for (__u32 attempt = 0; attempt < PORT_ATTEMPTS; attempt = loop_next(attempt)) {
		flow->source_port = port_at(attempt, passage, node);
		if (!attempt && flow_source(flow->lock) && node->nat_count &&
		    !port_is_foreign(bpf_ntohs(flow->source_port), node))
			continue;
		flow_tuple(flow, flow->lock, FLOW_REVERSE, node, &passage->wanted);
		hash = flow_prefetch(&passage->wanted);
		if (flow_source(flow->lock) && port_is_taken(ctx, &passage->wanted))
			continue;
		result = flow_insert_alone(flow, &passage->wanted, hash);
		if (result != FLOW_EXISTS)
			break;
	}
	flow->lock ^= FLOW_OTHER_KIND;
	flow->hop = hop;
	if (result != FLOW_INSERTED || flow_insert(flow, passage->hash) == FLOW_INSERTED)
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
 * Whether a connection goes to its endpoint in a tunnel. Not one to an address of this node, such
 * as a node port's: answers from there would be forged where the endpoint is.
 */
static __always_inline bool tunnels(const struct tuple *tuple)
{
	if (forwarding == FORWARD_SNAT || address_is_own(&tuple->destination))
		return false;
	return forwarding == FORWARD_DSR || tuple->protocol == FLOW_TCP;
}

/* What of passage->flow the packet says. */
static __always_inline void passage_fill(struct passage *passage)
{
	const struct tuple *tuple = &passage->packet.tuple;
	struct flow *flow = &passage->flow;

	flow->last_used = flow_now();
	flow->client = tuple->source;
	flow->client_port = tuple->source_port;
	flow->source_port = tuple->source_port;
	flow->frontend = tuple->destination;
	flow->frontend_port = tuple->destination_port;
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
	if (!backend || address_is_martian(&choice->address))
		return VERDICT_RETRY;
	passage_fill(passage);
	rewrites = !address_difference(&tuple->source, &choice->address) || masquerades(passage);
	path = passage->leaving ? FLOW_NODE : rewrites ? FLOW_REDIRECT : FLOW_STACK;
	if (path == FLOW_STACK && !passage->is_inside && !backend->local) {
		rewrites = !tunnels(tuple);
		path = rewrites ? FLOW_REDIRECT : FLOW_TUNNEL;
	}
	if (path != FLOW_STACK) {
		if (!backend_way(ctx, passage, &way))
			return VERDICT_RETRY;
		if (passage->leaving)
			rewrites |= way.source && source_find(&tuple->source) != way.source;
		if ((rewrites || path == FLOW_TUNNEL) && !way.source)
			return VERDICT_RETRY;
		source = rewrites ? way.source : 0;
	}
	flow->lock = flow_lock(FLOW_FORWARD, tuple->protocol, path, source);
	flow->hop = way.hop;
	flow->backend = choice->address;
	flow->backend_port = choice->port;
	return VERDICT_FORWARD;
}

/*
 * Whether an address, of which svc_filter says this, is one of the node's. Others of the same
 * position that matter are Services', and have wildcards: only then is there more to ask.
 */
static __always_inline bool filter_is_own(__u32 filter, const struct address *address)
{
	struct address copy;

	if (!(filter & FILTER_NODE))
		return false;
	if (!(filter & FILTER_WILDCARD))
		return true;
	copy = *address; /* so that the caller's may stay in registers */
	return source_find(&copy);
}

/* Whether any Service or connection may have to do with a packet's destination. */
static __always_inline bool packet_is_ours(const struct packet *packet)
{
	const struct tuple *tuple = &packet->tuple;
	__u32 filter = filter_lookup(&tuple->destination);

	if (filter_is_own(filter, &tuple->destination)) {
		const struct node *node = node_get();

		if (filter_lookup(&tuple->source) & FILTER_ENDPOINT)
			return true;
		return node && port_is_served(bpf_ntohs(tuple->destination_port), node);
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

/* The packet's device, NULL if it is not known, and what it says of whoever sent the packet. */
static __always_inline const struct device *passage_locate(struct passage *passage)
{
	const struct device *device = device_lookup(passage->ifindex);

	passage->is_inside = !device || device->is_inside;
	passage->is_pod = device && device->is_pod;
	return device;
}

/*
 * Whether a packet without a flow may be a reply to what this node has sent: where its node ports
 * lie, masqueraded sources, and sockets of the host that are told to, may too.
 */
static __always_inline bool passage_may_reply(const struct passage *passage)
{
	const struct packet *packet = &passage->packet;
	const struct node *node = node_get();

	if (!asks_conntrack || !node || passage->leaving || passage->tunnel.is_open)
		return false;
	if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN ||
	    !port_is_served(bpf_ntohs(packet->tuple.destination_port), node))
		return false;
	return address_is_own(&packet->tuple.destination);
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
	/* Node ports of loopback addresses are for sockets alone. */
	if (frontend_is_left(frontend) || address_is_martian(&request.key.address))
		return VERDICT_NONE;
	return balance(&request, frontend, &passage->choice);
}

/* The flow of a packet that another node has chosen the endpoint of. */
static __always_inline int passage_plan_tunnel(struct passage *passage)
{
	struct frontend_key key = { .address = passage->packet.tuple.destination,
				    .port = passage->packet.tuple.destination_port,
				    .protocol = protocol_to_ip(passage->packet.tuple.protocol) };
	__u64 frontend = frontend_find_again(&key);

	if (frontend_is_left(frontend) || frontend_kind(frontend) >= FRONTEND_REFUSE) {
		passage->choice.reason = REASON_NO_CONNECTION;
		return VERDICT_DROP;
	}
	passage->flow.lock = flow_lock(FLOW_FORWARD, passage->packet.tuple.protocol, FLOW_STACK, 0);
	passage->flow.hop = 0;
	passage->flow.backend = passage->tunnel.endpoint;
	passage->flow.backend_port = passage->tunnel.port;
	passage_fill(passage);
	return VERDICT_FORWARD;
}

/*
 * Begins the connection of a packet without a flow: VERDICT_FORWARD with passage->flow inserted;
 * VERDICT_REFUSE or VERDICT_DROP with a reason, not counted yet; VERDICT_NONE: leave it alone;
 * VERDICT_RETRY: the kernel knows no way.
 */
static __always_inline int passage_begin(struct PROGRAM_CONTEXT *ctx, struct passage *passage)
{
	bool is_tunnelled = passage->tunnel.is_open;
	int verdict;

	if (passage_is_forged(passage))
		return VERDICT_NONE;
	verdict = is_tunnelled ? passage_plan_tunnel(passage) : passage_balance(passage);
	if (verdict != VERDICT_FORWARD && verdict != VERDICT_REFUSE)
		return verdict;
	/* A reset begins nothing, and is answered by nothing (RFC 9293 §3.10.7.1, RFC 9260 §8.4).
	 */
	if (passage->packet.tcp_flags & TCP_RST) {
		passage->choice.reason = REASON_NO_CONNECTION;
		return VERDICT_DROP;
	}
	if (verdict == VERDICT_FORWARD && !is_tunnelled)
		verdict = passage_plan(ctx, passage);
	if (verdict != VERDICT_FORWARD)
		return verdict;
	if (flows_are_held()) {
		passage->choice.reason = REASON_FLOW_HELD;
		return VERDICT_DROP;
	}
	if (flow_path(passage->flow.lock) == FLOW_STACK)
		answering_add(&passage->flow.backend, passage->flow.backend_port);
	switch (passage_insert(ctx, passage)) {
	case FLOW_INSERTED:
		if (!is_tunnelled)
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
