/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What TC does to a packet: rewrite it by the kernel's helpers alone, which know partial checksums,
 * segments and what a device has summed; find its way; send it there. Decides nothing.
 */
#ifndef BPFSVC_SKB_H
#define BPFSVC_SKB_H

#include <stddef.h>
#include "maps.h"
#include "packet.h"
#include "forward.h"
#include "rewrite.h"
#include "passage.h"

#define IPV4_CHECK_OFFSET 10
#define IPV4_TTL_OFFSET	  8

/* What the kernel says in place of the size of SCTP's segments. */
#define GSO_BY_FRAGS 0xffff

/* A TCP packet over IPv6 of more bytes, Ethernet's too, has a header of so many that says how many
 * there are (RFC 2675 §2), until the kernel cuts it. Later kernels do without it. */
#define LARGEST_ORDINARY 65536
#define JUMBO_BYTES	 8

/* A byte of the packet, 0 if there is none. */
static __always_inline __u8 skb_byte(struct __sk_buff *ctx, __u32 offset)
{
	__u8 byte = 0;

	bpf_skb_load_bytes(ctx, offset, &byte, 1);
	return byte;
}

static __always_inline void skb_rewrite_sctp(struct __sk_buff *ctx, const struct packet *packet,
					     const struct tuple *wanted)
{
	__u32 check, ports = tuple_ports(wanted), offset = packet->transport + SCTP_CHECK_OFFSET;

	if (bpf_skb_load_bytes(ctx, offset, &check, sizeof(check)))
		return;
	if (!check) { /* left to the device, which takes it for zeros */
		bpf_skb_store_bytes(ctx, packet->transport, &ports, sizeof(ports),
				    BPF_F_RECOMPUTE_CSUM);
		return;
	}
	check ^= crc_difference(tuple_ports(&packet->tuple) ^ ports, transport_bytes(packet));
	bpf_skb_store_bytes(ctx, packet->transport, &ports, sizeof(ports), BPF_F_RECOMPUTE_CSUM);
	bpf_skb_store_bytes(ctx, offset, &check, sizeof(check), BPF_F_RECOMPUTE_CSUM);
}

/*
 * The transport checksum, whose pseudo header has other addresses. True: the ports are still to be
 * written.
 */
static __always_inline bool skb_rewrite_transport(struct __sk_buff *ctx,
						  const struct packet *packet, __u64 addresses,
						  const struct tuple *wanted)
{
	bool is_udp = packet->tuple.protocol == FLOW_UDP;
	__u32 offset = packet->transport + (is_udp ? UDP_CHECK_OFFSET : TCP_CHECK_OFFSET);
	__u64 flags = is_udp ? BPF_F_MARK_MANGLED_0 : 0, ports_sum;
	__u32 ports = tuple_ports(wanted);
	__u16 check;

	if (packet->tuple.protocol == FLOW_SCTP) {
		skb_rewrite_sctp(ctx, packet, wanted);
		return false;
	}
	if (is_udp && !bpf_skb_load_bytes(ctx, offset, &check, sizeof(check)) && !check) {
		/* No checksum makes up for the ports in what a device has summed. */
		bpf_skb_store_bytes(ctx, packet->transport, &ports, sizeof(ports),
				    BPF_F_RECOMPUTE_CSUM);
		return false;
	}
	bpf_l4_csum_replace(ctx, offset, 0, sum_fold32(addresses), flags | BPF_F_PSEUDO_HDR);
	if (ports == tuple_ports(&packet->tuple))
		return false;
	ports_sum = sum_of_ports(&packet->tuple, wanted);
	bpf_l4_csum_replace(ctx, offset, 0, sum_fold32(ports_sum), flags);
	return true;
}

/* IPv4's addresses and, where no options are between, the ports after them: each call costs. */
struct ipv4_piece {
	__be32 source;
	__be32 destination;
	__u32 ports;
};

static __always_inline void skb_rewrite_ipv4(struct __sk_buff *ctx, const struct packet *packet,
					     __u64 addresses, const struct tuple *wanted,
					     bool has_ports)
{
	struct ipv4_piece piece = { wanted->source.word[3], wanted->destination.word[3],
				    tuple_ports(wanted) };

	bpf_l3_csum_replace(ctx, packet->network + IPV4_CHECK_OFFSET, 0, sum_fold32(addresses), 0);
	bpf_skb_store_bytes(ctx, packet->network + offsetof(struct iphdr, saddr), &piece,
			    has_ports ? sizeof(piece) : offsetof(struct ipv4_piece, ports), 0);
}

/* Addresses, with the ports if `has_ports`; where the packet is routed here, one router more has
 * been passed. */
static __always_inline void skb_rewrite_network(struct __sk_buff *ctx, const struct packet *packet,
						__u64 addresses, const struct tuple *wanted,
						bool routes, bool has_ports)
{
	__u8 ttl = packet->ttl - 1;

	if (packet->ipv6) {
		__u32 offset = packet->network + offsetof(struct ipv6hdr, saddr);
		struct address pair[2] = { wanted->source, wanted->destination };

		/* Without an IP checksum that makes up for it, what a device has summed changes. */
		bpf_skb_store_bytes(ctx, offset, pair, sizeof(pair), BPF_F_RECOMPUTE_CSUM);
		if (routes)
			bpf_skb_store_bytes(ctx,
					    packet->network + offsetof(struct ipv6hdr, hop_limit),
					    &ttl, 1, BPF_F_RECOMPUTE_CSUM);
		return;
	}
	if (routes)
		addresses += (__u16)~bpf_htons(0x0100);
	skb_rewrite_ipv4(ctx, packet, addresses, wanted, has_ports);
	if (routes)
		bpf_skb_store_bytes(ctx, packet->network + IPV4_TTL_OFFSET, &ttl, 1, 0);
}

/* A packet becomes what passage->wanted says. Not static, so that the verifier follows it once. */
__noinline int skb_rewrite(struct __sk_buff *ctx, const struct passage *passage, bool routes)
{
	const struct packet *packet;
	bool has_ports = false;
	__u64 addresses;

	if (!passage)
		return 0;
	packet = &passage->packet;
	addresses = sum_of_addresses(&packet->tuple, &passage->wanted, packet->ipv6);
	if (packet->transport)
		has_ports = skb_rewrite_transport(ctx, packet, addresses, &passage->wanted);
	if (has_ports && (packet->ipv6 || !network_is_plain(packet))) {
		__u32 ports = tuple_ports(&passage->wanted);

		bpf_skb_store_bytes(ctx, packet->transport, &ports, sizeof(ports), 0);
		has_ports = false;
	}
	skb_rewrite_network(ctx, packet, addresses, &passage->wanted, routes, has_ports);
	return 0;
}

/*
 * Whether a packet is as its IP header says: what the stack would otherwise see to, of a packet
 * that it does not meet. Not static, so that the verifier follows it once.
 */
__noinline int skb_is_sound(struct __sk_buff *ctx, const struct packet *packet)
{
	__u32 word[15] = {}, length, first = 0;
	__u64 sum = 0;

	if (!packet || packet->network + packet->length > ctx->len)
		return false;
	if (packet->ipv6)
		return true;
	if (bpf_skb_load_bytes(ctx, packet->network, &first, 1))
		return false;
	length = (first & 15) * 4;
	if (length < sizeof(struct iphdr) || length > sizeof(word))
		return false;
	if (bpf_skb_load_bytes(ctx, packet->network, word, length))
		return false;
#pragma unroll
	for (int i = 0; i < 15; i++)
		sum += word[i];
	return sum_fold(sum) == 0xffff;
}

/*
 * Bytes of the packet, or of each segment that it will be sent in, from the IP header on. Segments
 * of SCTP are as long as they are, and nothing tells: 0. Those of a packet that is larger than
 * IPv6 can say are without the header that says how large it is.
 */
static __always_inline __u32 skb_length(struct __sk_buff *ctx, const struct packet *packet)
{
	__u32 header = network_bytes(packet) + UDP_BYTES;

	if (!ctx->gso_size)
		return packet->length;
	if (ctx->gso_size == GSO_BY_FRAGS)
		return 0;
	if (packet->ipv6 && !network_is_plain(packet) && ctx->len > LARGEST_ORDINARY)
		header -= JUMBO_BYTES;
	if (packet->tuple.protocol == FLOW_TCP)
		header += (skb_byte(ctx, packet->transport + 12) >> 4) * 4 - UDP_BYTES;
	return header + ctx->gso_size;
}

/* Whether nobody on the way may cut a packet: its sender is told how large is too large. */
static __always_inline bool skb_is_whole(struct __sk_buff *ctx, const struct packet *packet)
{
	__be16 fragment = 0;

	if (packet->ipv6)
		return true;
	bpf_skb_load_bytes(ctx, packet->network + offsetof(struct iphdr, frag_off), &fragment,
			   sizeof(fragment));
	return fragment & bpf_htons(IPV4_DF);
}

/* The way of a flow's packets: the row that it keeps, or what the kernel says now. False: none. */
static __always_inline bool skb_way(struct __sk_buff *ctx, __u64 found,
				    const struct passage *passage, struct way *way)
{
	struct hop *hop = hop_lookup(passage->flow.hop);
	__u32 now = flow_now();

	if (hop && hop->checked == now && hop_is_trusted(passage->flow.last_used, now)) {
		way->ifindex = hop->ifindex;
		way->next = hop->next;
		way->mtu = hop->mtu;
		way->source = hop->source;
		if (hop_lookup(passage->flow.hop) == hop)
			return true;
	}
	if (!fib_find(ctx, passage->ifindex, &passage->wanted, way))
		return false;
	if (way->hop != passage->flow.hop)
		flow_lead(found, way->hop);
	return true;
}

/* Sends the packet to its next hop, whose MAC address the kernel finds out where need be. */
static __always_inline int skb_send(const struct way *way)
{
	struct bpf_redir_neigh next = { .nh_family = AF_INET6 };

	if (address_is_ipv4(&way->next)) {
		next.nh_family = AF_INET;
		next.ipv4_nh = way->next.word[3];
	} else {
		__builtin_memcpy(next.ipv6_nh, way->next.word, sizeof(next.ipv6_nh));
	}
	return bpf_redirect_neigh(way->ifindex, &next, sizeof(next), 0);
}

/*
 * Puts a packet into a tunnel to its flow's endpoint, from an address of this node. Not static, so
 * that the verifier follows it once.
 */
__noinline int skb_encapsulate(struct __sk_buff *ctx, const struct passage *passage,
			       const struct address *source)
{
	const struct packet *packet;
	struct outer outer = {};
	__u64 flags;

	if (!passage || !source)
		return -1;
	packet = &passage->packet;
	flags = BPF_F_ADJ_ROOM_FIXED_GSO |
		(packet->ipv6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
	skb_rewrite_network(ctx, packet, 0, &packet->tuple, true, false);
	if (bpf_skb_adjust_room(ctx, tunnel_bytes(packet->ipv6), BPF_ADJ_ROOM_MAC, flags))
		return -1;
	outer_fill(&outer, packet, &passage->flow, source);
	if (packet->ipv6) /* as in skb_rewrite_network() */
		return bpf_skb_store_bytes(ctx, packet->network, &outer.ipv6, sizeof(outer.ipv6),
					   BPF_F_RECOMPUTE_CSUM);
	return bpf_skb_store_bytes(ctx, packet->network, &outer.ipv4, sizeof(outer.ipv4), 0);
}

#endif
