/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packet path in the stack: on the way in requests are translated, on the way out replies; what
 * must not meet the stack is sent on from here. Serves every device, alone or behind xdp.bpf.c, and
 * every packet, plain or not.
 */
#define PROGRAM_CONTEXT __sk_buff
#include <linux/if_packet.h>
#include "maps.h"
#include "packet.h"
#include "balance.h"
#include "flow.h"
#include "forward.h"
#include "rewrite.h"
#include "passage.h"
#include "skb.h"
#include "answer.h"
#include "unusual.h"
#include "conntrack.h"

/* Whether any Service or connection may have to do with a packet that leaves. */
static __always_inline bool leaving_is_ours(const struct tuple *tuple)
{
	__u32 filter = filter_lookup(&tuple->destination);

	if (answering_has(&tuple->source, tuple->source_port))
		return true;
	if (filter_is_own(filter, &tuple->destination))
		return false;
	return filter & (FILTER_FRONTEND | FILTER_WILDCARD) || range_contains(&tuple->destination);
}

/* What a few bytes of a packet that leaves tell of it. */
enum glance {
	GLANCE_NOTHING,	 /* it is not plain, or not all there yet */
	GLANCE_STRANGER, /* nothing of ours has to do with it */
	GLANCE_OURS,
};

/*
 * Nearly all of a node's packets are nothing to us. This tells so from registers, before anything
 * is read for good: every packet that leaves the node pays for it.
 */
static __always_inline enum glance skb_glance(struct __sk_buff *ctx, __u32 network, bool ipv6)
{
	const void *header = (void *)(long)ctx->data + network, *end = (void *)(long)ctx->data_end;
	const struct ipv6hdr *ip6 = header;
	const struct iphdr *ip4 = header;
	struct tuple tuple;

	if (ipv6) {
		if (header + sizeof(*ip6) + 2 > end || *(const __u8 *)ip6 >> 4 != 6 ||
		    protocol_from_ip(ip6->nexthdr) == FLOW_NO_PROTOCOL)
			return GLANCE_NOTHING;
		address_from_words(&tuple.source, ip6->saddr.in6_u.u6_addr32);
		address_from_words(&tuple.destination, ip6->daddr.in6_u.u6_addr32);
		tuple.source_port = *(const __be16 *)(ip6 + 1);
		return leaving_is_ours(&tuple) ? GLANCE_OURS : GLANCE_STRANGER;
	}
	if (header + sizeof(*ip4) + 2 > end || *(const __u8 *)ip4 != 0x45 ||
	    ip4->frag_off & bpf_htons(IP_FRAGMENT) ||
	    protocol_from_ip(ip4->protocol) == FLOW_NO_PROTOCOL)
		return GLANCE_NOTHING;
	address_from_ipv4(&tuple.source, ip4->saddr);
	address_from_ipv4(&tuple.destination, ip4->daddr);
	tuple.source_port = *(const __be16 *)(ip4 + 1);
	return leaving_is_ours(&tuple) ? GLANCE_OURS : GLANCE_STRANGER;
}

/* Whether the stack would have let a packet pass this hook: one that leaves, it has. */
static __always_inline bool passage_is_sound(struct __sk_buff *ctx, const struct passage *passage)
{
	return passage->leaving || skb_is_sound(ctx, &passage->packet);
}

/* What becomes of a packet that is not translated: out of a tunnel it would go somewhere else. */
static __always_inline int leave(const struct passage *passage)
{
	return passage->tunnel.is_open ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* A packet without a flow. TC_ACT_OK: it has one now. Nothing that is broken begins one. */
static __always_inline int begin(struct __sk_buff *ctx, struct passage *passage)
{
	if (!passage_is_sound(ctx, passage))
		return leave(passage);
	if (passage_may_reply(passage) && tracked_as_reply(ctx, &passage->packet.tuple))
		return leave(passage);
	passage_locate(passage);
	switch (passage_begin(ctx, passage)) {
	case VERDICT_FORWARD:
		return TC_ACT_OK;
	case VERDICT_REFUSE:
		refusal_count(&passage->choice);
		return answer_refuse(ctx, passage);
	case VERDICT_DROP:
		refusal_count(&passage->choice);
		return TC_ACT_SHOT;
	case VERDICT_RETRY:
		reason_count(REASON_NO_ROUTE);
		return TC_ACT_SHOT;
	}
	return leave(passage);
}

/* Whether what leads on takes packets that are larger than it says: a tunnel of the node's, whose
 * own packets the kernel cuts. */
static __always_inline bool way_cuts(const struct way *way)
{
	const struct device *device = device_lookup(way->ifindex);

	return device && !device->is_uplink && !device->is_inside;
}

/*
 * Whether somebody on the way may cut a packet. Not what the stack has cut already, nor what our
 * own header, which may not be cut, is put around.
 */
static __always_inline bool may_be_cut(struct __sk_buff *ctx, const struct passage *passage)
{
	return !passage->leaving && flow_path(passage->flow.lock) != FLOW_TUNNEL &&
	       !skb_is_whole(ctx, &passage->packet);
}

/* A packet that this node routes, besides translating it: what a router would say to it. */
static __always_inline int route(struct __sk_buff *ctx, __u64 found, struct passage *passage)
{
	struct complaint complaint = { .ipv4 = ICMP_TIME, .ipv6 = ICMP6_TIME };
	bool tunnel = flow_path(passage->flow.lock) == FLOW_TUNNEL;
	const struct packet *packet = &passage->packet;
	const struct address *source;
	struct way way = {};

	if (!passage_is_sound(ctx, passage))
		return leave(passage);
	if (packet->ttl <= 1 && !passage->leaving) {
		reason_count(REASON_TTL_EXCEEDED);
		return answer_error(ctx, passage, &complaint);
	}
	if (!skb_way(ctx, found, passage, &way)) {
		reason_count(REASON_NO_ROUTE);
		return TC_ACT_SHOT;
	}
	if (tunnel)
		way.mtu -= tunnel_bytes(packet->ipv6);
	if (way.mtu && packet->transport && skb_length(ctx, packet) > way.mtu &&
	    !(way_cuts(&way) && may_be_cut(ctx, passage))) {
		complaint.ipv4 = ICMP_UNREACHABLE | 4 << 8;
		complaint.ipv6 = ICMP6_TOO_BIG;
		complaint.mtu = least_mtu(packet, way.mtu);
		reason_count(REASON_TOO_BIG);
		return answer_error(ctx, passage, &complaint);
	}
	if (!tunnel) {
		skb_rewrite(ctx, passage, !passage->leaving);
		return skb_send(&way);
	}
	source = node_source(way.source);
	if (!source || skb_encapsulate(ctx, passage, source))
		return TC_ACT_SHOT;
	return skb_send(&way);
}

/*
 * A packet for this node or its pods that seems to come from elsewhere than it does, such as a
 * reply to a process of this node: it goes on as if it had come in by the device that leads to its
 * source, where a strict reverse path filter (rp_filter) expects it.
 */
static __always_inline int deliver(struct __sk_buff *ctx, __u64 found, struct passage *passage)
{
	const struct device *device;
	struct way way = {};

	skb_rewrite(ctx, passage, false);
	passage->packet.tuple = passage->wanted; /* as it is now */
	tuple_turn(&passage->packet.tuple, &passage->wanted);
	if (!skb_way(ctx, found, passage, &way) || way.ifindex == ctx->ifindex)
		return TC_ACT_UNSPEC;
	device = device_lookup(way.ifindex);
	if (!device || !passage->packet.network)
		return TC_ACT_UNSPEC;
	bpf_skb_store_bytes(ctx, 0, device->mac, sizeof(device->mac), 0);
	return bpf_redirect(way.ifindex, BPF_F_INGRESS);
}

/*
 * Whether another node has chosen another endpoint than the flow has. Its port can be told of a
 * packet that begins a connection alone: whoever cuts a packet into segments counts the outer
 * header's identification up.
 */
static __always_inline bool tunnel_differs(const struct passage *passage)
{
	const struct tunnel *tunnel = &passage->tunnel;

	if (!tunnel->is_open)
		return false;
	return address_difference(&passage->flow.backend, &tunnel->endpoint) ||
	       (passage->packet.tcp_flags & TCP_SYN && passage->flow.backend_port != tunnel->port);
}

/* Whether a packet's checksum cannot follow: a CRC does so by how much comes after the ports. */
static __always_inline bool is_unsummable(const struct passage *passage)
{
	const struct packet *packet = &passage->packet;

	return packet->fragment && packet->tuple.protocol == FLOW_SCTP &&
	       flow_path(passage->flow.lock) != FLOW_TUNNEL &&
	       tuple_ports(&packet->tuple) != tuple_ports(&passage->wanted);
}

/* What becomes of a packet of TCP, UDP or SCTP. Not static, so that the verifier follows it once.
 */
__noinline int translate(struct __sk_buff *ctx, struct passage *passage)
{
	const struct node *node = node_get();
	__u32 now = flow_now();
	__u64 found;

	if (!passage || !node)
		return TC_ACT_UNSPEC;
	passage->hash = flow_hash(&passage->packet.tuple, node->hash_key);
	found = flow_lookup(&passage->packet.tuple, passage->hash, &passage->flow);
	if (found &&
	    (flow_is_over(&passage->flow, &passage->packet, now) || tunnel_differs(passage))) {
		flow_end(&passage->flow, passage->flow.lock);
		found = 0;
	}
	if (!found) {
		int action = begin(ctx, passage);

		if (action != TC_ACT_OK)
			return action;
	}
	if (!passage_may_translate(passage))
		return leave(passage);
	if (found)
		flow_meet(found, &passage->flow, &passage->packet, now);
	flow_wanted(&passage->flow, node, &passage->wanted);
	if (is_unsummable(passage)) {
		reason_count(REASON_FRAGMENT_LOST);
		return TC_ACT_SHOT;
	}
	switch (flow_path(passage->flow.lock)) {
	case FLOW_STACK:
		if (passage->tunnel.is_open)
			return deliver(ctx, found, passage);
		skb_rewrite(ctx, passage, false);
		return TC_ACT_UNSPEC;
	case FLOW_NODE:
		if (!passage->leaving)
			return deliver(ctx, found, passage);
	}
	return route(ctx, found, passage);
}

/* An ICMP error about a reply of an endpoint of this node, out of the tunnel that it came in. Not
 * static, so that the verifier follows it once. */
__noinline int deliver_error(struct __sk_buff *ctx, struct passage *passage)
{
	if (!passage)
		return TC_ACT_SHOT;
	passage->tunnel.is_open = false; /* what was in it is the node's now */
	return deliver(ctx, 0, passage);
}

/* An ICMP error about a tunnel of this node, or about something that is not ours. Not static, so
 * that the verifier follows it once. */
__noinline int complain(struct __sk_buff *ctx, struct passage *passage)
{
	struct complaint complaint = {};
	struct way way = {};
	int action;

	if (!passage)
		return TC_ACT_UNSPEC;
	action = tunnel_complain(ctx, passage, &complaint);
	if (action != TC_ACT_OK)
		return action;
	action = answer_error(ctx, passage, &complaint);
	tuple_turn(&passage->packet.tuple, &passage->wanted);
	if (action == TC_ACT_SHOT || !fib_find(ctx, passage->ifindex, &passage->wanted, &way))
		return TC_ACT_SHOT;
	return skb_send(&way); /* not back to whoever reported it */
}

/* An ICMP message: a ping to one of our addresses, or an error about a packet of ours. */
static __always_inline int translate_icmp(struct __sk_buff *ctx, struct passage *passage)
{
	struct packet *packet = &passage->packet;
	__u8 type = skb_byte(ctx, packet->transport);
	const struct address *source;
	struct way way = {};
	__u32 kind, path;

	if (type == (packet->ipv6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO_REQUEST))
		return passage->leaving ? TC_ACT_UNSPEC : echo_answer(ctx, passage);
	if (!icmp_is_error(packet, type))
		return TC_ACT_UNSPEC;
	kind = inner_read(ctx, passage) ? icmp_translate(ctx, passage) : FLOW_FREE;
	if (kind == FLOW_FREE)
		return complain(ctx, passage);
	path = flow_path(passage->flow.lock);
	if (path != FLOW_REDIRECT && path != FLOW_TUNNEL) {
		if (passage->tunnel.is_open)
			return deliver_error(ctx, passage);
		skb_rewrite(ctx, passage, false);
		return TC_ACT_UNSPEC;
	}
	if (packet->ttl <= 1 || !fib_find(ctx, passage->ifindex, &passage->wanted, &way)) {
		reason_count(packet->ttl <= 1 ? REASON_TTL_EXCEEDED : REASON_NO_ROUTE);
		return TC_ACT_SHOT;
	}
	if (path == FLOW_REDIRECT) {
		skb_rewrite(ctx, passage, true);
		return skb_send(&way);
	}
	source = node_source(way.source);
	if (!source || skb_encapsulate(ctx, passage, source))
		return TC_ACT_SHOT;
	return skb_send(&way);
}

/*
 * A packet that is not plain. TC_ACT_OK: struct packet says all of it now. Not static, so that the
 * verifier follows it once.
 */
__noinline int translate_unusual(struct __sk_buff *ctx, struct passage *passage)
{
	int what;

	if (!passage)
		return TC_ACT_UNSPEC;
	what = unusual_read(ctx, &passage->packet, ctx->protocol == bpf_htons(ETH_P_IPV6), false);
	if (what != UNUSUAL_OTHER && !passage_is_sound(ctx, passage))
		return TC_ACT_UNSPEC;
	switch (what) {
	case UNUSUAL_PACKET:
	case UNUSUAL_FRAGMENT:
		return TC_ACT_OK;
	case UNUSUAL_TUNNEL:
		return tunnel_open(ctx, passage);
	case UNUSUAL_ICMP:
		return translate_icmp(ctx, passage);
	case UNUSUAL_LOST:
		/* Untranslated it would go somewhere else, unless the node itself is meant. */
		if (passage->leaving || !address_is_served(&passage->packet.tuple.destination))
			return TC_ACT_UNSPEC;
		reason_count(REASON_FRAGMENT_LOST);
		return TC_ACT_SHOT;
	}
	return TC_ACT_UNSPEC;
}

/* Reads a plain packet. False: it is another one. */
static __always_inline bool skb_parse(struct __sk_buff *ctx, struct packet *packet, __u32 network,
				      bool ipv6)
{
	__u32 header = ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	__u32 wanted = network + header + TCP_BYTES;

	if (ctx->data + wanted > ctx->data_end)
		bpf_skb_pull_data(ctx, ctx->len < wanted ? ctx->len : wanted);
	return packet_parse(packet, network, ipv6, (void *)(long)ctx->data,
			    (void *)(long)ctx->data_end);
}

/* Whether an uplink has heard a packet that is addressed to another host, or to all: each of them
 * would send it on (RFC 1812 §5.3.4). */
static __always_inline bool is_overheard(struct __sk_buff *ctx, bool leaving)
{
	const struct device *device;

	if (leaving || ctx->pkt_type == PACKET_HOST)
		return false;
	device = device_lookup(ctx->ifindex);
	return device && device->is_uplink;
}

/* Reads a packet, whose IP header is `network` bytes from its start, and passes on what is not
 * ours. */
static __always_inline int handle(struct __sk_buff *ctx, __u32 network, bool leaving)
{
	bool ipv6 = ctx->protocol == bpf_htons(ETH_P_IPV6);
	enum glance glance = GLANCE_NOTHING;
	struct passage *passage;
	struct packet *packet;

	/* What has a VLAN's tag is served on the VLAN's own device. */
	if (ctx->vlan_present || (!ipv6 && ctx->protocol != bpf_htons(ETH_P_IP)))
		return TC_ACT_UNSPEC;
	if (leaving)
		glance = skb_glance(ctx, network, ipv6);
	passage = glance == GLANCE_STRANGER ? NULL : passage_get();
	if (!passage)
		return TC_ACT_UNSPEC;
	packet = &passage->packet;
	packet->network = network;
	passage->ifindex = ctx->ifindex;
	passage->leaving = leaving;
	passage->tunnel.is_open = false;
	if (!skb_parse(ctx, packet, network, ipv6)) {
		int action = TC_ACT_UNSPEC;

		if (!is_overheard(ctx, leaving))
			action = translate_unusual(ctx, passage);
		if (action == TC_ACT_OK && passage->tunnel.is_open &&
		    !skb_parse(ctx, packet, network, ipv6))
			action = translate_unusual(ctx, passage);
		if (action != TC_ACT_OK)
			return passage->tunnel.is_open ? TC_ACT_SHOT : action;
	}
	if (!(leaving ? glance == GLANCE_OURS || leaving_is_ours(&packet->tuple) :
			packet_is_ours(packet)) ||
	    packet_is_mapped(packet))
		return leave(passage);
	return is_overheard(ctx, leaving) ? TC_ACT_UNSPEC : translate(ctx, passage);
}

SEC("tc")
int svc_tc_ingress(struct __sk_buff *ctx)
{
	return handle(ctx, sizeof(struct ethhdr), false);
}

SEC("tc")
int svc_tc_egress(struct __sk_buff *ctx)
{
	return handle(ctx, sizeof(struct ethhdr), true);
}

/* For devices without an Ethernet header. */
SEC("tc")
int svc_tc_ingress_l3(struct __sk_buff *ctx)
{
	return handle(ctx, 0, false);
}

SEC("tc")
int svc_tc_egress_l3(struct __sk_buff *ctx)
{
	return handle(ctx, 0, true);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
