/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses of 16 bytes, IPv4 as ::ffff:a.b.c.d: made, compared, hashed; and what every program
 * needs to satisfy compiler and verifier. Knows no map.
 */
#ifndef BPFSVC_ADDRESS_H
#define BPFSVC_ADDRESS_H

#include <bpf/bpf_endian.h>
#include "maps.h"

#define READ_ONCE(x)	     (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

#define barrier() asm volatile("" ::: "memory")

/*
 * A loop counts with this: Linux 6.1 refuses a loop that goes back by anything but a jump, and
 * clang 14 would lay out some so that the counting falls through to the loop's start.
 */
static __always_inline __u32 loop_next(__u32 index)
{
	index++;
	barrier_var(index);
	return index;
}

/*
 * 32 ones if a value is 0, else none. Loops choose by masks: the verifier follows both ways of each
 * branch, and there would be hundreds. Not by 64 ones: it takes them for -1, and follows that and
 * 0 apart (Linux 6.18).
 */
static __always_inline __u64 mask_if_zero(__u32 value)
{
	__u64 mask = ((__u64)value - 1) >> 32;

	barrier_var(mask);
	return mask;
}

/* Two words of an address at once, where it lies at a multiple of eight bytes. */
typedef __u64 __attribute__((may_alias)) word_pair;

/* 0 if two addresses are the same that lie so, as in flows, tuples and svc_node. */
static __always_inline __u64 address_pair_difference(const struct address *one,
						     const struct address *other)
{
	const word_pair *a = (const word_pair *)one, *b = (const word_pair *)other;

	return (a[0] ^ b[0]) | (a[1] ^ b[1]);
}

static __always_inline __u32 address_sum(const struct address *address)
{
	return address->word[0] * 0x9e3779b1 + address->word[1] * 0x85ebca77 +
	       address->word[2] * 0xc2b2ae3d + address->word[3] * 0x27d4eb2f;
}

static __always_inline __u32 sum_mix(__u32 sum)
{
	sum ^= sum >> 15;
	sum *= 0x2c1b3c6d;
	return sum ^ sum >> 12;
}

/* A hash of an address, for its position in svc_filter. The agent has the same. */
static __always_inline __u32 address_hash(const struct address *address)
{
	return sum_mix(address_sum(address));
}

static __always_inline void address_from_ipv4(struct address *address, __be32 ipv4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = bpf_htonl(0xffff);
	address->word[3] = ipv4;
}

static __always_inline bool address_is_ipv4(const struct address *address)
{
	return !(address->word[0] | address->word[1] | (address->word[2] ^ bpf_htonl(0xffff)));
}

/* True for what is no single host's, or a host's own alone (RFC 1812 §5.3.7, RFC 4291 §2.4). */
static __always_inline bool address_is_martian(const struct address *address)
{
	__u32 last = bpf_ntohl(address->word[3]);

	if (address_is_ipv4(address))
		return !(last >> 24) || last >> 24 == 127 || last >> 28 == 14 || last == ~0U;
	return bpf_ntohl(address->word[0]) >> 24 == 0xff ||
	       !(address->word[0] | address->word[1] | address->word[2] | last >> 1);
}

/*
 * 0 if two addresses are equal. One value to branch on instead of four: in loops the verifier
 * follows every branch, and the processor guesses each.
 */
static __always_inline __u32 address_difference(const struct address *a, const struct address *b)
{
	return (a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
	       (a->word[3] ^ b->word[3]);
}

/* 0 if an address lies in a range. */
static __always_inline __u32 range_difference(const struct service_range *range,
					      const struct address *address)
{
	const __be32 *mask = range->mask.word, *from = range->address.word;

	return ((address->word[0] & mask[0]) ^ from[0]) | ((address->word[1] & mask[1]) ^ from[1]) |
	       ((address->word[2] & mask[2]) ^ from[2]) | ((address->word[3] & mask[3]) ^ from[3]);
}

static __always_inline void address_from_words(struct address *address, const __be32 *word)
{
	address->word[0] = word[0];
	address->word[1] = word[1];
	address->word[2] = word[2];
	address->word[3] = word[3];
}

#endif
