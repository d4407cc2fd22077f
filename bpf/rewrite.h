/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses, ports and checksums of a packet become others. In XDP by arithmetic on the bytes
 * (RFC 1624), in TC by the kernel's helpers alone, which know partial checksums and segments.
 * Decides nothing.
 */
#ifndef BPFSVC_REWRITE_H
#define BPFSVC_REWRITE_H

#include "maps.h"
#include "packet.h"
#include "balance.h"
#include "flow.h"

#define IPV4_DF 0x4000

#define TCP_CHECK_OFFSET  16
#define UDP_CHECK_OFFSET  6
#define SCTP_CHECK_OFFSET 8

/* CRC32c's polynomial, reflected (RFC 9260 appendix A). */
#define CRC32C_POLYNOMIAL 0x82f63b78

/* What a sum of 16-bit words changes by when 32-bit words change; not folded. */
static __always_inline __u64 sum_difference(__u32 old, __u32 new)
{
	return (__u64)(__u32)~old + new;
}

/* Of addresses of one family: those of IPv4 differ in their last words alone. */
static __always_inline __u64 sum_of_addresses(const struct tuple *old, const struct tuple *new,
					      bool ipv6)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (!ipv6 && i < 3)
			continue;
		sum += sum_difference(old->source.word[i], new->source.word[i]);
		sum += sum_difference(old->destination.word[i], new->destination.word[i]);
	}
	return sum;
}

static __always_inline __u64 sum_of_ports(const struct tuple *old, const struct tuple *new)
{
	return sum_difference(tuple_ports(old), tuple_ports(new));
}

/* To 32 bits, as the helpers want it. To add a sum to itself turned by half leaves the sum of both
 * halves in the upper one, with the carry that goes around (RFC 1071 §2). */
static __always_inline __u32 sum_fold32(__u64 sum)
{
	return (sum + (sum << 32 | sum >> 32)) >> 32;
}

static __always_inline __u16 sum_fold(__u64 sum)
{
	__u32 half = sum_fold32(sum);

	return (half + (half << 16 | half >> 16)) >> 16;
}

/* The checksum after the summed words have changed by `difference`. */
static __always_inline __u16 checksum_after(__u16 check, __u64 difference)
{
	return ~sum_fold(difference + (__u16)~check);
}

/* The sum of a pseudo header, as a partial checksum holds it (RFC 9293 §3.1, RFC 8200 §8.1). */
static __always_inline __u16 pseudo_sum_of(const struct tuple *tuple, __u8 protocol, __u32 bytes,
					   bool ipv6)
{
	__u64 sum = bpf_htonl(bytes) + (__u64)bpf_htonl(protocol);

#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (!ipv6 && i < 3)
			continue;
		sum += (__u64)tuple->source.word[i] + tuple->destination.word[i];
	}
	return sum_fold(sum);
}

static __always_inline __u16 pseudo_sum(const struct tuple *tuple, __u32 bytes, bool ipv6)
{
	return pseudo_sum_of(tuple, protocol_to_ip(tuple->protocol), bytes, ipv6);
}

#define TUNNEL_TTL 64

/* Bytes that a tunnel adds. */
static __always_inline __u32 tunnel_bytes(bool ipv6)
{
	return ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

/* A tunnel's header, of one family. */
struct outer {
	union {
		struct iphdr ipv4;
		struct ipv6hdr ipv6;
	};
};

/* The header that leads a packet to its flow's endpoint, from an address of this node. */
static __always_inline void outer_fill(struct outer *outer, const struct packet *packet,
				       const struct flow *flow, const struct address *source)
{
	if (packet->ipv6) {
		__u32 *word = (__u32 *)&outer->ipv6;

		word[0] = bpf_htonl(6U << 28 | bpf_ntohs(flow->backend_port));
		outer->ipv6.payload_len = bpf_htons(packet->length);
		outer->ipv6.nexthdr = IPPROTO_IPV6;
		outer->ipv6.hop_limit = TUNNEL_TTL;
		__builtin_memcpy(&outer->ipv6.saddr, source, 16);
		__builtin_memcpy(&outer->ipv6.daddr, &flow->backend, 16);
	} else {
		const __u32 *word = (const __u32 *)&outer->ipv4;
		__u64 sum = 0;

		outer->ipv4 = (struct iphdr){ .version = 4, .ihl = 5, .protocol = IPPROTO_IPIP };
		outer->ipv4.ttl = TUNNEL_TTL;
		outer->ipv4.id = flow->backend_port;
		outer->ipv4.frag_off = bpf_htons(IPV4_DF);
		outer->ipv4.tot_len = bpf_htons(packet->length + sizeof(struct iphdr));
		outer->ipv4.saddr = source->word[3];
		outer->ipv4.daddr = flow->backend.word[3];
#pragma unroll
		for (int i = 0; i < 5; i++)
			sum += word[i];
		outer->ipv4.check = ~sum_fold(sum);
	}
}

/* The product of two polynomials over GF(2), modulo CRC32c's, both reflected. */
static __always_inline __u32 crc_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

#pragma nounroll
	for (__u32 i = 0; i < 32; i = loop_next(i)) {
		product ^= a & 1U << 31 ? b : 0;
		a <<= 1;
		b = b >> 1 ^ (b & 1 ? CRC32C_POLYNOMIAL : 0);
	}
	return product;
}

/* x to the power of 8 * 2^i, modulo the polynomial: what 2^i bytes of zeros multiply a CRC by. */
static const __u32 crc_zeros[16] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a,
	0xb82be955, 0xb8fdb1e7, 0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a,
	0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
};

/*
 * What the CRC32c of `length` bytes changes by when its first four, a little-endian word, change by
 * `difference`. A CRC is linear: whatever the other bytes are, they move the difference's own CRC
 * like zeros. Not static, so that the verifier follows it once.
 */
__noinline __u32 crc_difference(__u32 difference, __u32 length)
{
#pragma nounroll
	for (__u32 i = 0; i < 16; i = loop_next(i))
		if (length >> i & 1)
			difference = crc_multiply(difference, crc_zeros[i]);
	return difference;
}

#endif
