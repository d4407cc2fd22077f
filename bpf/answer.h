/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of our own, made of the one at hand and sent back to whoever sent it: resets, ICMP
 * errors, echo replies. No more of them than a limit a second. TC alone.
 */
#ifndef BPFSVC_ANSWER_H
#define BPFSVC_ANSWER_H

#include "maps.h"
#include "packet.h"
#include "rewrite.h"
#include "passage.h"
#include "skb.h"

#define TC_ACT_UNSPEC (-1) /* the next program decides */
#define TC_ACT_OK     0
#define TC_ACT_SHOT   2

#define ANSWERS_PER_SECOND 1000 /* on each CPU */
#define ANSWERS_AT_ONCE	   200
#define ANSWER_TTL	   64

#define ICMP_UNREACHABLE  3
#define ICMP_TIME	  11
#define ICMP6_UNREACHABLE 1
#define ICMP6_TOO_BIG	  2
#define ICMP6_TIME	  3
#define IPPROTO_ICMPV6	  58

#define IPV6_LEAST_MTU 1280 /* RFC 8200 §5 */

/* What an ICMP error says: type and, a byte higher, code; and the MTU where it is of use. */
struct complaint {
	__u32 ipv4;
	__u32 ipv6;
	__u32 mtu;
	bool is_quoted; /* about a packet out of an error: no device completes its checksum */
};

/* What a sender is told that a way takes: over IPv6 none heeds less than all must take (RFC 8201
 * §4, RFC 2473 §7.1), even if a tunnel's header leaves less. */
static __always_inline __u32 least_mtu(const struct packet *packet, __u32 mtu)
{
	return packet->ipv6 && mtu < IPV6_LEAST_MTU ? IPV6_LEAST_MTU : mtu;
}

/* Whether one answer more may be sent. */
static __always_inline bool answer_allowed(void)
{
	__u64 now = bpf_ktime_get_coarse_ns(), since;
	__u32 index = 0;
	struct answers *answers = bpf_map_lookup_elem(&svc_answers, &index);

	if (!answers)
		return false;
	since = now - answers->refilled_ns;
	if (since >= NANOSECONDS / ANSWERS_PER_SECOND) {
		answers->refilled_ns = now;
		answers->left += since / (NANOSECONDS / ANSWERS_PER_SECOND);
		if (answers->left > ANSWERS_AT_ONCE || since > NANOSECONDS)
			answers->left = ANSWERS_AT_ONCE;
	}
	if (!answers->left) {
		reason_count(REASON_ANSWER_LIMIT);
		return false;
	}
	answers->left--;
	return true;
}

/* Back to where the packet came from: a packet that was leaving goes to this node's own stack. */
static __always_inline int answer_send(struct __sk_buff *ctx, const struct passage *passage)
{
	__u8 mac[12];

	if (passage->packet.network) {
		if (bpf_skb_load_bytes(ctx, 6, mac, 6) || bpf_skb_load_bytes(ctx, 0, mac + 6, 6))
			return TC_ACT_SHOT;
		if (passage->leaving) /* addressed to the device that the stack sent it by */
			__builtin_memcpy(mac + 6, mac, 6);
		bpf_skb_store_bytes(ctx, 0, mac, sizeof(mac), 0);
	}
	return bpf_redirect(ctx->ifindex, passage->leaving ? BPF_F_INGRESS : 0);
}

/*
 * Whether the transport checksum is left to the device: nothing tells but its value. One in 65536
 * that is complete seems so too; its answer has a wrong checksum, and is asked for again.
 */
static __always_inline bool answer_is_partial(struct __sk_buff *ctx, const struct packet *packet)
{
	__u32 offset = packet->tuple.protocol == FLOW_UDP ? UDP_CHECK_OFFSET : TCP_CHECK_OFFSET;
	__u16 check = 0, sum;

	if (packet->tuple.protocol == FLOW_SCTP)
		return false;
	bpf_skb_load_bytes(ctx, packet->transport + offset, &check, sizeof(check));
	sum = pseudo_sum(&packet->tuple, transport_bytes(packet), packet->ipv6);
	return check == sum || (packet->tuple.protocol == FLOW_TCP && sum == 0xffff && !check);
}

/* An IP header for an answer of so many bytes after it, in place of the packet's own. */
static __always_inline void answer_network(struct __sk_buff *ctx, const struct packet *packet,
					   __u8 protocol, __u32 bytes)
{
	if (packet->ipv6) {
		struct ipv6hdr ip = { .version = 6, .nexthdr = protocol, .hop_limit = ANSWER_TTL };

		ip.payload_len = bpf_htons(bytes);
		__builtin_memcpy(&ip.saddr, &packet->tuple.destination, 16);
		__builtin_memcpy(&ip.daddr, &packet->tuple.source, 16);
		bpf_skb_store_bytes(ctx, packet->network, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
	} else {
		struct iphdr ip = {
			.version = 4, .ihl = 5, .protocol = protocol, .ttl = ANSWER_TTL
		};
		const __u32 *word = (const __u32 *)&ip;
		__u64 sum = 0;

		ip.tot_len = bpf_htons(sizeof(ip) + bytes);
		ip.saddr = packet->tuple.destination.word[3];
		ip.daddr = packet->tuple.source.word[3];
#pragma unroll
		for (int i = 0; i < 5; i++)
			sum += word[i];
		ip.check = ~sum_fold(sum);
		bpf_skb_store_bytes(ctx, packet->network, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
	}
}

/* The sequence numbers and flags of a reset to `length` bytes of data (RFC 9293 §3.10.7.1). */
static __always_inline void reset_fill(struct __sk_buff *ctx, const struct packet *packet,
				       __u32 length, __u32 *word)
{
	__be32 number[2] = {};

	bpf_skb_load_bytes(ctx, packet->transport + 4, number, sizeof(number));
	word[0] = packet->tuple.destination_port | (__u32)packet->tuple.source_port << 16;
	word[4] = 0;
	if (packet->tcp_flags & TCP_ACK) {
		word[1] = number[1];
		word[2] = 0;
		word[3] = bpf_htonl(0x50000000 | TCP_RST << 16);
		return;
	}
	length += !!(packet->tcp_flags & TCP_SYN) + !!(packet->tcp_flags & TCP_FIN);
	word[1] = 0;
	word[2] = bpf_htonl(bpf_ntohl(number[0]) + length);
	word[3] = bpf_htonl(0x50000000 | (TCP_RST | TCP_ACK) << 16);
}

/* Refuses a TCP connection. Not static, so that the verifier follows it once. */
__noinline int answer_reset(struct __sk_buff *ctx, const struct passage *passage)
{
	const struct packet *packet;
	__u32 word[5], header;
	bool is_partial;
	__u64 sum;

	if (!passage)
		return TC_ACT_SHOT;
	packet = &passage->packet;
	header = (skb_byte(ctx, packet->transport + 12) >> 4) * 4;
	if (header < TCP_BYTES || header > transport_bytes(packet) || !network_is_plain(packet) ||
	    !answer_allowed())
		return TC_ACT_SHOT;
	is_partial = answer_is_partial(ctx, packet);
	reset_fill(ctx, packet, transport_bytes(packet) - header, word);
	sum = pseudo_sum(&packet->tuple, TCP_BYTES, packet->ipv6);
	if (is_partial) {
		word[4] = sum_fold(sum);
	} else {
#pragma unroll
		for (int i = 0; i < 5; i++)
			sum += word[i];
		word[4] = (__u16)~sum_fold(sum);
	}
	if (bpf_skb_change_tail(ctx, packet->transport + TCP_BYTES, 0))
		return TC_ACT_SHOT;
	answer_network(ctx, packet, IPPROTO_TCP, TCP_BYTES);
	bpf_skb_store_bytes(ctx, packet->transport, word, sizeof(word), BPF_F_RECOMPUTE_CSUM);
	return answer_send(ctx, passage);
}

/* Of a transport header, the ports and as much again: what every error quotes (RFC 792). */
#define QUOTED_BYTES 8

#define QUOTE_BYTES 68 /* an IPv4 header with all options and 8 bytes, more than IPv6 and TCP */

/* What is quoted of a packet: its headers as far as they are there, in whole words. */
static __always_inline __u32 quote_length(const struct packet *packet)
{
	__u32 header = network_bytes(packet);

	if (header + TCP_BYTES > QUOTE_BYTES || (!packet->ipv6 && header > sizeof(struct iphdr)) ||
	    packet->tuple.protocol != FLOW_TCP)
		return header + QUOTED_BYTES;
	return header + TCP_BYTES;
}

/*
 * The sum of what is quoted. A partial checksum in it will be completed on its way out, over what
 * is quoted: the sum is of what it becomes then.
 */
static __always_inline __u64 quote_sum(const __u32 *quote, const struct packet *packet,
				       bool is_partial)
{
	__u32 first = network_bytes(packet) / 4;
	__u64 sum = 0, transport = 0;
	__u16 check = 0;

#pragma unroll
	for (__u32 i = 0; i < QUOTE_BYTES / 4; i++) {
		sum += quote[i];
		if (i >= first)
			transport += quote[i];
		if (i == first + (packet->tuple.protocol == FLOW_UDP ? 1 : 4))
			check = packet->tuple.protocol == FLOW_UDP ? quote[i] >> 16 : quote[i];
	}
	return is_partial ? sum + (__u16)~check + (__u16)~sum_fold(transport) : sum;
}

/* Tells the sender why its packet goes no further. Not static, so that the verifier follows it
 * once. */
__noinline int answer_error(struct __sk_buff *ctx, struct passage *passage,
			    const struct complaint *complaint)
{
	__u32 quote[QUOTE_BYTES / 4] = {}, length, header[2], room;
	struct packet *packet;
	bool is_partial;
	__u64 sum;

	if (!passage || !complaint)
		return TC_ACT_SHOT;
	packet = &passage->packet;
	if (!packet->transport)
		return TC_ACT_SHOT;
	length = quote_length(packet);
	if (packet->network + length > ctx->len) /* no more of it was quoted */
		length = network_bytes(packet) + QUOTED_BYTES;
	if (length > QUOTE_BYTES || length < 28 || !answer_allowed())
		return TC_ACT_SHOT;
	barrier_var(length);
	if (length > QUOTE_BYTES || length < 28 ||
	    bpf_skb_load_bytes(ctx, packet->network, quote, length))
		return TC_ACT_SHOT;
	is_partial = !complaint->is_quoted && answer_is_partial(ctx, packet);
	sum = quote_sum(quote, packet, is_partial);
	header[0] = READ_ONCE(complaint->ipv4);
	if (packet->ipv6)
		header[0] = READ_ONCE(complaint->ipv6);
	header[1] = bpf_htonl(complaint->mtu);
	sum += (__u64)header[0] + header[1];
	if (packet->ipv6)
		sum += pseudo_sum_of(&packet->tuple, IPPROTO_ICMPV6, length + 8, true);
	header[0] |= (__u32)(__u16)~sum_fold(sum) << 16;
	room = packet->ipv6 ? sizeof(struct ipv6hdr) + 8 : sizeof(struct iphdr) + 8;
	if (bpf_skb_change_tail(ctx, packet->network + length, 0) ||
	    bpf_skb_adjust_room(ctx, room, BPF_ADJ_ROOM_MAC, 0))
		return TC_ACT_SHOT;
	answer_network(ctx, packet, packet->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, length + 8);
	bpf_skb_store_bytes(ctx, packet->network + room - 8, header, sizeof(header),
			    BPF_F_RECOMPUTE_CSUM);
	return answer_send(ctx, passage);
}

/* Refuses a connection (semantics §7.1): an ICMP error would cost TCP over IPv6 a second. */
static __always_inline int answer_refuse(struct __sk_buff *ctx, struct passage *passage)
{
	struct complaint complaint = { .ipv4 = ICMP_UNREACHABLE | 3 << 8,
				       .ipv6 = ICMP6_UNREACHABLE | 4 << 8 };

	if (passage->packet.tuple.protocol == FLOW_TCP)
		return answer_reset(ctx, passage);
	return answer_error(ctx, passage, &complaint);
}

#endif
