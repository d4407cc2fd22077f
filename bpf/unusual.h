/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that packet.h does not read: with IP options or extension headers, fragments, those that
 * are larger than their header can say, and ICMP, which speaks of other packets. TC alone.
 */
#ifndef BPFSVC_UNUSUAL_H
#define BPFSVC_UNUSUAL_H

#include "maps.h"
#include "packet.h"
#include "flow.h"
#include "rewrite.h"
#include "passage.h"
#include "skb.h"
#include "answer.h"

#define MOST_EXTENSIONS 6

#define NEXT_HOP_BY_HOP	 0
#define NEXT_ROUTING	 43
#define NEXT_FRAGMENT	 44
#define NEXT_DESTINATION 60

#define ICMP_ECHO_REPLY	   0
#define ICMP_ECHO_REQUEST  8
#define ICMP_PARAMETER	   12
#define ICMP6_PARAMETER	   4
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY   129
#define ICMP_BYTES	   8

/* No ICMP error is longer (RFC 1812 §4.3.2.3, RFC 4443 §2.4). */
#define LONGEST_ERROR  1280
#define SUMMED_AT_ONCE 64

/* What a packet is that is not plain. */
enum unusual {
	UNUSUAL_OTHER,	  /* nothing that is translated */
	UNUSUAL_PACKET,	  /* struct packet says all */
	UNUSUAL_FRAGMENT, /* not the first of its datagram; the ports are those of the first */
	UNUSUAL_LOST,	  /* the same, but the first has not been seen */
	UNUSUAL_TUNNEL,	  /* another packet is in it, from packet->transport on */
	UNUSUAL_ICMP,	  /* packet->transport is where its header is */
};

/* What has been read of the headers in between. */
struct chain {
	__be32 id;	 /* of a fragment's datagram */
	__u16 transport; /* offset of what follows */
	__u16 offset;	 /* of a fragment, with its flag for more, in host order */
	__u8 protocol;
	bool is_fragment;
};

/*
 * Whether a packet is larger than its IP header can say, which says 0 then: segments of TCP that
 * the kernel has put together, or will cut it into (BIG TCP). Told as the kernel tells it.
 */
static __always_inline bool chain_is_big(struct __sk_buff *ctx, const struct chain *chain)
{
	return chain->protocol == IPPROTO_TCP && ctx->gso_size;
}

static __always_inline bool chain_read_ipv4(struct __sk_buff *ctx, struct packet *packet,
					    struct chain *chain)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(ctx, packet->network, &ip, sizeof(ip)) || ip.version != 4 ||
	    ip.ihl < 5)
		return false;
	packet->ttl = ip.ttl;
	packet->length = bpf_ntohs(ip.tot_len);
	address_from_ipv4(&packet->tuple.source, ip.saddr);
	address_from_ipv4(&packet->tuple.destination, ip.daddr);
	chain->transport = packet->network + ip.ihl * 4;
	chain->protocol = ip.protocol;
	chain->is_fragment = ip.frag_off & bpf_htons(IP_FRAGMENT);
	chain->offset = bpf_ntohs(ip.frag_off) & 0x1fff;
	chain->id = (__be32)ip.id;
	if (!ip.tot_len && chain_is_big(ctx, chain))
		packet->length = ctx->len - packet->network;
	return packet->length >= ip.ihl * 4;
}

static __always_inline bool protocol_is_extension(__u8 protocol)
{
	return protocol == NEXT_HOP_BY_HOP || protocol == NEXT_ROUTING ||
	       protocol == NEXT_FRAGMENT || protocol == NEXT_DESTINATION;
}

/* Follows extension headers to what they extend; others than these are not understood. */
static __always_inline bool chain_read_ipv6(struct __sk_buff *ctx, struct packet *packet,
					    struct chain *chain)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(ctx, packet->network, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	packet->ttl = ip.hop_limit;
	packet->length = bpf_ntohs(ip.payload_len) + sizeof(ip);
	address_from_words(&packet->tuple.source, ip.saddr.in6_u.u6_addr32);
	address_from_words(&packet->tuple.destination, ip.daddr.in6_u.u6_addr32);
	if (packet_is_mapped(packet))
		return false;
	chain->id = *(const __be16 *)&ip.flow_lbl[1];
	chain->transport = packet->network + sizeof(ip);
	chain->protocol = ip.nexthdr;
#pragma nounroll
	for (__u32 i = 0; i < MOST_EXTENSIONS; i = loop_next(i)) {
		__u8 next[8];

		if (!protocol_is_extension(chain->protocol)) {
			if (!ip.payload_len && chain_is_big(ctx, chain))
				packet->length = ctx->len - packet->network;
			return true;
		}
		if (bpf_skb_load_bytes(ctx, chain->transport, next, sizeof(next)))
			return false;
		if (chain->protocol == NEXT_ROUTING && next[3])
			return false; /* segments are left: the destination is not the last one */
		if (chain->protocol == NEXT_FRAGMENT) {
			__u16 offset = next[2] << 8 | next[3];

			chain->is_fragment = offset & ~6;
			chain->offset = offset >> 3;
			__builtin_memcpy(&chain->id, next + 4, 4);
			chain->transport += 8;
		} else {
			chain->transport += (next[1] + 1) * 8;
		}
		chain->protocol = next[0];
		if (chain->offset)
			return true; /* of a later fragment nothing more is there */
	}
	return false;
}

/* Ports and flags of a packet whose transport header is there. */
static __always_inline bool transport_read(struct __sk_buff *ctx, struct packet *packet)
{
	__u8 header[TCP_BYTES] = {};
	__u32 bytes = packet->tuple.protocol == FLOW_TCP ? TCP_BYTES :
		      packet->tuple.protocol == FLOW_UDP ? UDP_BYTES :
							   SCTP_BYTES;

	packet->tcp_flags = 0;
	if (bpf_skb_load_bytes(ctx, packet->transport, header, UDP_BYTES))
		return false;
	if (packet->tuple.protocol == FLOW_TCP) {
		if (bpf_skb_load_bytes(ctx, packet->transport, header, TCP_BYTES))
			return false;
		packet->tcp_flags = header[13];
	} else if (packet->tuple.protocol == FLOW_SCTP) {
		if (bpf_skb_load_bytes(ctx, packet->transport, header, SCTP_BYTES))
			return false;
		packet->tcp_flags = sctp_flags(header[12]);
	}
	__builtin_memcpy(&packet->tuple.source_port, header, 4);
	return packet->length >= network_bytes(packet) + bytes;
}

/* Ports of a packet that an error quotes, of which no more may be there. */
static __always_inline enum unusual quoted_read(struct __sk_buff *ctx, struct packet *packet,
						const struct chain *chain)
{
	__be32 ports;

	if (chain->offset || bpf_skb_load_bytes(ctx, packet->transport, &ports, sizeof(ports)))
		return UNUSUAL_OTHER;
	packet->tcp_flags = 0;
	*(__u32 *)&packet->tuple.source_port = ports;
	return UNUSUAL_PACKET;
}

/* The first fragment tells later ones its ports. */
static __always_inline enum unusual fragment_read(struct __sk_buff *ctx, struct packet *packet,
						  const struct chain *chain)
{
	struct fragment_key key = { .source = packet->tuple.source,
				    .destination = packet->tuple.destination,
				    .id = chain->id,
				    .protocol = chain->protocol };
	struct fragment ports, *first;

	if (chain->offset) {
		packet->transport = 0;
		packet->tcp_flags = 0;
		first = bpf_map_lookup_elem(&svc_fragments, &key);
		if (!first)
			return UNUSUAL_LOST;
		packet->tuple.source_port = first->source_port;
		packet->tuple.destination_port = first->destination_port;
		return UNUSUAL_FRAGMENT;
	}
	if (!transport_read(ctx, packet))
		return UNUSUAL_OTHER;
	ports.source_port = packet->tuple.source_port;
	ports.destination_port = packet->tuple.destination_port;
	bpf_map_update_elem(&svc_fragments, &key, &ports, BPF_ANY);
	return UNUSUAL_PACKET;
}

/* Reads a packet that is not plain, or one that an ICMP error quotes. Not static, so that the
 * verifier follows it once. */
__noinline int unusual_read(struct __sk_buff *ctx, struct packet *packet, bool ipv6, bool is_quoted)
{
	struct chain chain = {};

	if (!packet)
		return UNUSUAL_OTHER;
	packet->ipv6 = ipv6;
	if (!(ipv6 ? chain_read_ipv6(ctx, packet, &chain) : chain_read_ipv4(ctx, packet, &chain)))
		return UNUSUAL_OTHER;
	packet->fragment = chain.is_fragment;
	packet->transport = chain.transport;
	packet->tuple.protocol = protocol_from_ip(chain.protocol);
	if (ipv6 && chain.offset && protocol_is_extension(chain.protocol))
		return UNUSUAL_LOST; /* what it is of stands in the first alone */
	if (chain.protocol == (ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return chain.is_fragment || packet->length < network_bytes(packet) + ICMP_BYTES ?
			       UNUSUAL_OTHER :
			       UNUSUAL_ICMP;
	if (chain.protocol == (ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP) && !chain.is_fragment) {
		packet->tuple.destination_port = chain.id;
		return UNUSUAL_TUNNEL;
	}
	if (packet->tuple.protocol == FLOW_NO_PROTOCOL)
		return UNUSUAL_OTHER;
	if (is_quoted)
		return quoted_read(ctx, packet, &chain);
	if (chain.is_fragment)
		return fragment_read(ctx, packet, &chain);
	return transport_read(ctx, packet) ? UNUSUAL_PACKET : UNUSUAL_OTHER;
}

/* Whether ports of an address that is not the node's are a Service's: all such have a wildcard.
 * svc_filter alone would take strangers' for one. */
static __always_inline bool address_is_served(const struct address *address)
{
	struct frontend_key key = { .address = *address };

	return filter_lookup(address) & FILTER_WILDCARD && !address_is_own(address) &&
	       !frontend_is_left(wildcard_lookup(&key));
}

/*
 * Where a packet goes that stands at `offset` in another one. False: it is none of the same family,
 * or its header is not all in there.
 */
static __always_inline bool inner_destination(struct __sk_buff *ctx, const struct packet *packet,
					      __u32 offset, struct address *destination)
{
	__u32 room = packet->network + packet->length - offset;

	if (packet->ipv6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(ctx, offset, &ip, sizeof(ip)) || ip.version != 6)
			return false;
		address_from_words(destination, ip.daddr.in6_u.u6_addr32);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(ctx, offset, &ip, sizeof(ip)) || ip.version != 4 ||
		    ip.ihl < 5 || ip.ihl * 4U > room)
			return false;
		address_from_ipv4(destination, ip.daddr);
	}
	return true;
}

/*
 * Takes a packet out of a tunnel that another node has put it in, if it is for an endpoint here
 * and the packet in it for a Service. TC_ACT_OK: the packet at hand is that one now. Not static, so
 * that the verifier follows it once.
 */
__noinline int tunnel_open(struct __sk_buff *ctx, struct passage *passage)
{
	struct address inner;
	struct packet *packet;
	__u32 bytes;

	if (!passage)
		return TC_ACT_UNSPEC;
	packet = &passage->packet;
	bytes = tunnel_bytes(packet->ipv6);
	if (passage->leaving || network_bytes(packet) != bytes ||
	    !(filter_lookup(&packet->tuple.destination) & FILTER_ENDPOINT) ||
	    packet->length < 2 * bytes)
		return TC_ACT_UNSPEC;
	if (!inner_destination(ctx, packet, packet->transport, &inner) ||
	    !address_is_served(&inner) || !leads_inside(ctx, passage->ifindex, &packet->tuple))
		return TC_ACT_UNSPEC;
	passage->tunnel.endpoint = packet->tuple.destination;
	passage->tunnel.port = packet->tuple.destination_port;
	passage->tunnel.is_open = true;
	return bpf_skb_adjust_room(ctx, -(__s32)bytes, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ?
		       TC_ACT_SHOT :
		       TC_ACT_OK;
}

/* Whether a ping to an address of which a wildcard of this kind speaks is answered here. */
static __always_inline bool echo_is_ours(struct __sk_buff *ctx, const struct passage *passage,
					 enum frontend_kind kind)
{
	struct way way = {};

	if (kind != FRONTEND_HOST)
		return kind == FRONTEND_REFUSE || kind == FRONTEND_VIP;
	/* Elsewhere may be a host that has the address; back where it came from it would loop. */
	return !fib_find(ctx, passage->ifindex, &passage->packet.tuple, &way) ||
	       way.ifindex == passage->ifindex;
}

/*
 * A ping to an address of ours that no device has is answered here. Where it is one of the node's
 * own, the kernel does. Not static, so that the verifier follows it once.
 */
__noinline int echo_answer(struct __sk_buff *ctx, struct passage *passage)
{
	const struct packet *packet;
	struct frontend_key key = {};
	__u32 reply;

	if (!passage)
		return TC_ACT_SHOT;
	packet = &passage->packet;
	key.address = packet->tuple.destination;
	if (!(filter_lookup(&key.address) & FILTER_WILDCARD) || address_is_own(&key.address))
		return TC_ACT_UNSPEC;
	/* From the node's own it may be a pod's, masqueraded, that a router has sent back here. */
	if (!network_is_plain(packet) || address_is_martian(&packet->tuple.source) ||
	    !echo_is_ours(ctx, passage, frontend_kind(wildcard_lookup(&key))))
		return TC_ACT_UNSPEC;
	if (!answer_allowed())
		return TC_ACT_SHOT;
	reply = packet->ipv6 ? ICMP6_ECHO_REPLY : ICMP_ECHO_REPLY;
	bpf_l4_csum_replace(ctx, packet->transport + 2,
			    packet->ipv6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO_REQUEST, reply, 2);
	bpf_skb_store_bytes(ctx, packet->transport, &reply, 1, 0);
	answer_network(ctx, packet, packet->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
		       transport_bytes(packet));
	return answer_send(ctx, passage);
}

static __always_inline bool icmp_is_error(const struct packet *packet, __u8 type)
{
	if (packet->ipv6)
		return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER;
	return type == ICMP_UNREACHABLE || type == ICMP_TIME || type == ICMP_PARAMETER;
}

/*
 * What the sender of a packet in a tunnel is told of an error about that tunnel. False: nothing; an
 * error that says less than every way over IPv6 takes does not count (RFC 8201 §4).
 */
static __always_inline bool complaint_forward(const struct packet *packet, const __u8 *message,
					      struct complaint *complaint)
{
	__u32 mtu = bpf_ntohl(*(const __be32 *)(message + 4));
	__u32 bytes = tunnel_bytes(packet->ipv6);

	complaint->is_quoted = true;
	if (packet->ipv6 ? message[0] == ICMP6_TOO_BIG :
			   message[0] == ICMP_UNREACHABLE && message[1] == 4) {
		mtu = packet->ipv6 ? mtu : (__u16)mtu;
		if (packet->ipv6 && mtu < IPV6_LEAST_MTU)
			return false;
		complaint->mtu = least_mtu(packet, mtu > bytes ? mtu - bytes : 0);
		complaint->ipv4 = ICMP_UNREACHABLE | 4 << 8;
		complaint->ipv6 = ICMP6_TOO_BIG;
		reason_count(REASON_TOO_BIG);
		return true;
	}
	complaint->ipv4 = ICMP_UNREACHABLE | 1 << 8;
	complaint->ipv6 = ICMP6_UNREACHABLE | 3 << 8;
	reason_count(REASON_TUNNEL_REFUSED);
	return true;
}

/* Whether the checksum of an ICMP message is right: what is made of it will have one that is. Not
 * static, so that the verifier follows it once. */
__noinline int icmp_is_summed(struct __sk_buff *ctx, const struct packet *packet)
{
	__u32 bytes, sum = 0;

	if (!packet)
		return false;
	bytes = transport_bytes(packet);
	if (packet->ipv6)
		sum = pseudo_sum_of(&packet->tuple, IPPROTO_ICMPV6, bytes, true);
#pragma nounroll
	for (__u32 i = 0; i < LONGEST_ERROR / SUMMED_AT_ONCE; i = loop_next(i)) {
		__u32 word[SUMMED_AT_ONCE / 4] = {}, at = i * SUMMED_AT_ONCE, more;

		if (bytes <= at)
			break;
		more = bytes - at - 1; /* so that Linux 6.1 sees that one byte at least is read */
		if (more >= SUMMED_AT_ONCE)
			more = SUMMED_AT_ONCE - 1;
		barrier_var(more);
		if (bpf_skb_load_bytes(ctx, packet->transport + at, word, more + 1))
			return false;
		sum = bpf_csum_diff(NULL, 0, word, sizeof(word), sum);
	}
	return bytes <= LONGEST_ERROR && sum_fold(sum) == 0xffff;
}

/*
 * Whether a header that an ICMP error quotes is that of a tunnel of this node: from the address
 * that the error is for, without options, and whole. Says where the tunnel leads.
 */
static __always_inline bool outer_is_ours(struct __sk_buff *ctx, const struct packet *packet,
					  __u32 offset, struct address *endpoint)
{
	struct address source;

	if (packet->ipv6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(ctx, offset, &ip, sizeof(ip)) || ip.version != 6 ||
		    ip.nexthdr != IPPROTO_IPV6)
			return false;
		address_from_words(&source, ip.saddr.in6_u.u6_addr32);
		address_from_words(endpoint, ip.daddr.in6_u.u6_addr32);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(ctx, offset, &ip, sizeof(ip)) || ip.version != 4 ||
		    ip.ihl != 5 || ip.frag_off & bpf_htons(IP_FRAGMENT) ||
		    ip.protocol != IPPROTO_IPIP)
			return false;
		address_from_ipv4(&source, ip.saddr);
		address_from_ipv4(endpoint, ip.daddr);
	}
	return !address_difference(&source, &packet->tuple.destination) &&
	       filter_lookup(endpoint) & FILTER_ENDPOINT;
}

/* Whether a packet was put in a tunnel to `endpoint` here; it is of the flow that is noted then. */
static __always_inline bool is_tunnelled(struct passage *passage, const struct address *endpoint)
{
	const struct tuple *tuple = &passage->packet.tuple;
	const struct node *node = node_get();

	return node && flow_lookup(tuple, flow_hash(tuple, node->hash_key), &passage->flow) &&
	       flow_kind(passage->flow.lock) == FLOW_FORWARD &&
	       flow_path(passage->flow.lock) == FLOW_TUNNEL &&
	       !address_difference(&passage->flow.backend, endpoint);
}

/*
 * An ICMP error about a tunnel of this node becomes one about the packet in it, to whoever sent
 * that (RFC 2003 §4, RFC 2473 §8): the way takes less than this node knew, or the endpoint's node
 * takes nothing out of tunnels. TC_ACT_OK: the packet at hand is the one in the tunnel now, and
 * `complaint` is to be sent about it; TC_ACT_UNSPEC: the error is about something else. Not static,
 * so that the verifier follows it once.
 */
__noinline int tunnel_complain(struct __sk_buff *ctx, struct passage *passage,
			       struct complaint *complaint)
{
	__u8 message[ICMP_BYTES] = {};
	struct address *endpoint;
	struct packet *packet;
	__u32 start, end, ahead;

	if (!passage || !complaint)
		return TC_ACT_UNSPEC;
	packet = &passage->packet;
	endpoint = &passage->tunnel.endpoint;
	start = packet->network;
	end = start + packet->length;
	if (passage->leaving || !address_is_own(&packet->tuple.destination) ||
	    !outer_is_ours(ctx, packet, packet->transport + ICMP_BYTES, endpoint) ||
	    !icmp_is_summed(ctx, packet) ||
	    bpf_skb_load_bytes(ctx, packet->transport, message, sizeof(message)))
		return TC_ACT_UNSPEC;
	packet->network = packet->transport + ICMP_BYTES + tunnel_bytes(packet->ipv6);
	if (unusual_read(ctx, packet, packet->ipv6, true) != UNUSUAL_PACKET ||
	    packet->transport + QUOTED_BYTES > end || !is_tunnelled(passage, endpoint) ||
	    !complaint_forward(packet, message, complaint))
		return TC_ACT_UNSPEC;
	ahead = packet->network - start; /* of the packet in the tunnel */
	packet->network = start;
	packet->transport -= ahead;
	return bpf_skb_change_tail(ctx, end, 0) ||
			       bpf_skb_adjust_room(ctx, -(__s32)ahead, BPF_ADJ_ROOM_MAC,
						   BPF_F_ADJ_ROOM_FIXED_GSO) ?
		       TC_ACT_SHOT :
		       TC_ACT_OK;
}

/* Reads the packet that an error quotes, as far as it must be there. False: it cannot be read, or
 * its sender is not who the error is for. Not static, so that the verifier follows it once, and so
 * that its stack is free again for icmp_translate(). */
__noinline int inner_read(struct __sk_buff *ctx, struct passage *passage)
{
	const struct packet *packet;
	struct packet *inner;

	if (!passage)
		return false;
	packet = &passage->packet;
	inner = &passage->inner;
	inner->network = packet->transport + ICMP_BYTES;
	return unusual_read(ctx, inner, packet->ipv6, true) == UNUSUAL_PACKET &&
	       inner->transport + QUOTED_BYTES <= packet->network + packet->length &&
	       !address_difference(&inner->tuple.source, &packet->tuple.destination);
}

/* What a changed inner packet changes the sum of an ICMP message by, and its own UDP checksum. */
static __always_inline __u64 inner_rewrite(struct __sk_buff *ctx, const struct packet *inner,
					   const struct tuple *wanted)
{
	__u64 addresses = sum_of_addresses(&inner->tuple, wanted, inner->ipv6);
	__u64 ports_sum = sum_of_ports(&inner->tuple, wanted), sum = ports_sum;
	__u32 ports = tuple_ports(wanted), offset = inner->transport + UDP_CHECK_OFFSET;
	__u16 check, after;

	bpf_skb_store_bytes(ctx, inner->transport, &ports, sizeof(ports), 0);
	if (inner->tuple.protocol == FLOW_UDP &&
	    !bpf_skb_load_bytes(ctx, offset, &check, sizeof(check)) && check) {
		after = checksum_after(check, addresses + ports_sum);
		if (!after)
			after = 0xffff;
		bpf_skb_store_bytes(ctx, offset, &after, sizeof(after), 0);
		sum += sum_difference(check, after);
	}
	if (inner->ipv6) {
		struct address pair[2] = { wanted->source, wanted->destination };

		bpf_skb_store_bytes(ctx, inner->network + offsetof(struct ipv6hdr, saddr), pair,
				    sizeof(pair), 0);
		return sum + addresses;
	} else {
		__be32 pair[2] = { wanted->source.word[3], wanted->destination.word[3] };

		/* Its own checksum makes up for the addresses. */
		bpf_l3_csum_replace(ctx, inner->network + IPV4_CHECK_OFFSET, 0,
				    sum_fold32(addresses), 0);
		bpf_skb_store_bytes(ctx, inner->network + offsetof(struct iphdr, saddr), pair,
				    sizeof(pair), 0);
		return sum;
	}
}

/*
 * Translates an ICMP error, of which inner_read() has read all, to what its receiver knows: the
 * packet that it quotes was a translated one, of the flow that packets the other way meet. Returns
 * that flow's kind and path in passage->flow, and where the error goes in passage->wanted;
 * FLOW_FREE: it is no flow's. Not static, so that the verifier follows it once.
 */
__noinline int icmp_translate(struct __sk_buff *ctx, struct passage *passage)
{
	const struct node *node = node_get();
	const struct packet *inner;
	struct packet *packet;
	struct tuple known;
	__u64 sum, outer;
	__u32 kind;

	if (!passage || !node)
		return FLOW_FREE;
	packet = &passage->packet;
	inner = &passage->inner;
	tuple_turn(&inner->tuple, &known);
	if (!flow_lookup(&known, flow_hash(&known, node->hash_key), &passage->flow))
		return FLOW_FREE;
	kind = flow_kind(passage->flow.lock);
	if (!passage_may_translate(passage))
		return FLOW_FREE;
	flow_wanted(&passage->flow, node, &passage->wanted);
	/* About a reply: the endpoint's node has sent that, and knows what of. */
	if (flow_path(passage->flow.lock) == FLOW_TUNNEL)
		return kind;
	/* Who reports it: the endpoint seems to be the Service; a router keeps its address, unless
	 * the report goes on to another node, where such a source would be forged. */
	if (address_difference(&packet->tuple.source, &known.source) &&
	    (kind == FLOW_REVERSE || flow_path(passage->flow.lock) == FLOW_STACK))
		passage->wanted.source = packet->tuple.source;
	tuple_turn(&passage->wanted, &known);
	if (kind == FLOW_REVERSE) {
		known.source = passage->flow.client;
		known.destination = passage->flow.frontend;
	} else {
		known.source = passage->flow.backend;
		known.destination = *flow_source_address(&passage->flow, passage->flow.lock, node);
	}
	sum = inner_rewrite(ctx, inner, &known);
	bpf_l4_csum_replace(ctx, packet->transport + 2, 0, sum_fold32(sum), 0);
	passage->wanted.source_port = packet->tuple.source_port;
	passage->wanted.destination_port = packet->tuple.destination_port;
	if (packet->ipv6) {
		outer = sum_of_addresses(&packet->tuple, &passage->wanted, true);
		bpf_l4_csum_replace(ctx, packet->transport + 2, 0, sum_fold32(outer),
				    BPF_F_PSEUDO_HDR);
	}
	packet->transport = 0; /* all but the IP header is done */
	return kind;
}

#endif
