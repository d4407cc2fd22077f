/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From bytes to struct packet: who sends to whom. Reads the plain packets that nearly all are, TCP,
 * UDP and SCTP right after an IP header, at the same offsets in XDP and TC. Fragments, extension
 * headers and ICMP are told from them here and read elsewhere. Changes nothing.
 */
#ifndef BPFSVC_PACKET_H
#define BPFSVC_PACKET_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include "maps.h"
#include "address.h"

#define IP_FRAGMENT 0x3fff /* more fragments, or not the first */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Who sends to whom; both ports are one aligned u32, and two words of an address one u64. */
struct tuple {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 protocol; /* enum flow_protocol */
} __attribute__((aligned(8)));

struct packet {
	struct tuple tuple;
	__u16 network;	 /* offset of the IP header */
	__u16 transport; /* offset of the transport header; 0: none, as in a later fragment */
	__u32 length;	 /* bytes from the IP header on, as that says */
	__u8 ttl;
	__u8 tcp_flags; /* of SCTP: those that a chunk of the same meaning would have */
	bool ipv6;
	bool fragment; /* one of several, so that not all that its checksum covers is here */
};

static __always_inline __u32 tuple_ports(const struct tuple *tuple)
{
	return *(const __u32 *)&tuple->source_port;
}

/* The tuple of packets the other way. */
static __always_inline void tuple_turn(const struct tuple *from, struct tuple *to)
{
	to->source = from->destination;
	to->destination = from->source;
	to->source_port = from->destination_port;
	to->destination_port = from->source_port;
	to->protocol = from->protocol;
}

/* Bytes of the IP header and what extends it; not of a later fragment. */
static __always_inline __u32 network_bytes(const struct packet *packet)
{
	return packet->transport - packet->network;
}

/* Bytes from the transport header on, as the IP header says. */
static __always_inline __u32 transport_bytes(const struct packet *packet)
{
	return packet->length - network_bytes(packet);
}

/* Whether nothing is between the IP header and the transport header. */
static __always_inline bool network_is_plain(const struct packet *packet)
{
	return network_bytes(packet) ==
	       (packet->ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
}

/* Whether an IPv6 header has an IPv4 address, which no host has there (RFC 4942 §2.2): what is
 * asked of it would be asked of the IPv4 address. */
static __always_inline bool packet_is_mapped(const struct packet *packet)
{
	return packet->ipv6 && (address_is_ipv4(&packet->tuple.source) ||
				address_is_ipv4(&packet->tuple.destination));
}

static __always_inline __u32 protocol_from_ip(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return FLOW_TCP;
	case IPPROTO_UDP:
		return FLOW_UDP;
	case IPPROTO_SCTP:
		return FLOW_SCTP;
	}
	return FLOW_NO_PROTOCOL;
}

static __always_inline __u8 protocol_to_ip(__u32 protocol)
{
	switch (protocol) {
	case FLOW_TCP:
		return IPPROTO_TCP;
	case FLOW_UDP:
		return IPPROTO_UDP;
	}
	return IPPROTO_SCTP;
}

/* Bytes of a transport header that are read: SCTP's with the type of its first chunk. */
#define TCP_BYTES  20
#define UDP_BYTES  8
#define SCTP_BYTES 13

/* What an SCTP packet's first chunk means, in TCP's words (RFC 9260 §3.2). */
static __always_inline __u8 sctp_flags(__u8 chunk)
{
	switch (chunk) {
	case 1: /* INIT */
		return TCP_SYN;
	case 6: /* ABORT */
		return TCP_RST;
	case 7: /* SHUTDOWN */
	case 8: /* SHUTDOWN ACK */
		return TCP_FIN;
	case 14: /* SHUTDOWN COMPLETE */
		return TCP_FIN | TCP_RST;
	}
	return TCP_ACK;
}

/* Ports and flags. False: the header is not all there, or longer than the packet. */
static __always_inline bool packet_parse_transport(struct packet *packet, const void *header,
						   const void *end)
{
	__u32 least = network_bytes(packet);
	const __u8 *byte = header;

	packet->tcp_flags = 0;
	switch (packet->tuple.protocol) {
	case FLOW_TCP:
		least += TCP_BYTES;
		if (header + TCP_BYTES > end)
			return false;
		packet->tcp_flags = byte[13];
		break;
	case FLOW_UDP:
		least += UDP_BYTES;
		if (header + UDP_BYTES > end)
			return false;
		break;
	default:
		least += SCTP_BYTES;
		if (header + SCTP_BYTES > end)
			return false;
		packet->tcp_flags = sctp_flags(byte[12]);
	}
	if (packet->length < least)
		return false;
	*(__u32 *)&packet->tuple.source_port = *(const __u32 *)header;
	return true;
}

/* A plain IPv4 packet, without options. */
static __always_inline bool packet_parse_ipv4(struct packet *packet, __u32 network,
					      const void *data, const void *end)
{
	const struct iphdr *ip = data + network;

	if ((const void *)(ip + 1) > end)
		return false;
	packet->tuple.protocol = protocol_from_ip(ip->protocol);
	if (*(const __u8 *)ip != 0x45 || ip->frag_off & bpf_htons(IP_FRAGMENT) ||
	    packet->tuple.protocol == FLOW_NO_PROTOCOL)
		return false;
	packet->ipv6 = false;
	packet->fragment = false;
	packet->ttl = ip->ttl;
	packet->length = bpf_ntohs(ip->tot_len);
	packet->network = network;
	packet->transport = network + sizeof(*ip);
	address_from_ipv4(&packet->tuple.source, ip->saddr);
	address_from_ipv4(&packet->tuple.destination, ip->daddr);
	return packet_parse_transport(packet, ip + 1, end);
}

/* A plain IPv6 packet, without extension headers. */
static __always_inline bool packet_parse_ipv6(struct packet *packet, __u32 network,
					      const void *data, const void *end)
{
	const struct ipv6hdr *ip = data + network;

	if ((const void *)(ip + 1) > end)
		return false;
	packet->tuple.protocol = protocol_from_ip(ip->nexthdr);
	if (*(const __u8 *)ip >> 4 != 6 || packet->tuple.protocol == FLOW_NO_PROTOCOL)
		return false;
	packet->ipv6 = true;
	packet->fragment = false;
	packet->ttl = ip->hop_limit;
	packet->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	packet->network = network;
	packet->transport = network + sizeof(*ip);
	address_from_words(&packet->tuple.source, ip->saddr.in6_u.u6_addr32);
	address_from_words(&packet->tuple.destination, ip->daddr.in6_u.u6_addr32);
	return packet_parse_transport(packet, ip + 1, end);
}

/* True for a plain packet, of which all is known then; `network` is the offset of its IP header. */
static __always_inline bool packet_parse(struct packet *packet, __u32 network, bool ipv6,
					 const void *data, const void *end)
{
	return ipv6 ? packet_parse_ipv6(packet, network, data, end) :
		      packet_parse_ipv4(packet, network, data, end);
}

#endif
