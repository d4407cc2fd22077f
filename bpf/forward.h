/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Next hops: which device, which MAC addresses and which own address lead to a destination. A cache
 * of what the kernel's routes and neighbours say, filled and checked here; the agent only takes
 * rows out of force when netlink tells of a change. Knows no flows and no Services.
 */
#ifndef BPFSVC_FORWARD_H
#define BPFSVC_FORWARD_H

#include "maps.h"
#include "balance.h"
#include "packet.h"

#ifndef PROGRAM_CONTEXT
#error "PROGRAM_CONTEXT is struct xdp_md or struct __sk_buff"
#endif

#define AF_INET	 2
#define AF_INET6 10

/* Whether bpf_fib_lookup() says which address the node has towards a next hop (Linux 6.7). */
const volatile bool fib_has_source = false;

/* In no header that is old enough. */
#define FIB_LOOKUP_SRC (1U << 4)

#define HOP_WAYS	4
#define HOP_GENERATIONS (1U << (16 - HOP_BITS))

/*
 * A row that has been in use of late is not given to another next hop: it changes hands once in two
 * units of the clock at most. So the few bits of its generation that a reference has tell, for as
 * many units as there are generations, whether it still leads where it did.
 */
#define HOP_REST 1

/* A way to a destination. */
struct way {
	struct address next;
	__u32 ifindex;
	__u16 hop;   /* what a flow may keep; 0: nothing */
	__u16 mtu;   /* 0: not known */
	__u8 source; /* this node's address that way, an index in svc_node; 0: not known */
	bool sends_frames;
};

static __always_inline const struct device *device_lookup(__u32 ifindex)
{
	return bpf_map_lookup_elem(&svc_devices, &ifindex);
}

static __always_inline __u16 hop_reference(__u32 index, __u16 generation)
{
	return index | (generation >> 1 & (HOP_GENERATIONS - 1)) << HOP_BITS;
}

/*
 * Whether a reference that was used last then, by flow_now(), means the same row as it did. Every
 * packet asks: that one in between, on another CPU, was later than `now` makes no exception.
 */
static __always_inline bool hop_is_trusted(__u16 used, __u32 now)
{
	return (__u16)(now - used) < HOP_GENERATIONS;
}

/* The row that a flow keeps, NULL if it is out of force. */
static __always_inline struct hop *hop_lookup(__u16 reference)
{
	__u32 index = reference & ((1U << HOP_BITS) - 1);
	struct hop *hop = bpf_map_lookup_elem(&svc_hops, &index);
	__u16 generation;

	if (!reference || !hop)
		return NULL;
	generation = READ_ONCE(hop->generation);
	if (generation & 1 || hop_reference(index, generation) != reference)
		return NULL;
	return hop;
}

/* Generation, sends_frames and source of a row are one u32, and change together. */
static __always_inline __u32 hop_word(__u16 generation, bool sends_frames, __u8 source)
{
	return generation | sends_frames << 16 | source << 24;
}

/* Fills a row that leads to `way`, unless another CPU is at it. */
static __always_inline bool hop_fill(struct hop *hop, __u32 word, const struct way *way,
				     const __u8 *header, __u32 now)
{
	__u16 generation = word;

	if (generation & 1 ||
	    __sync_val_compare_and_swap((__u32 *)&hop->generation, word, word | 1) != word)
		return false;
	hop->ifindex = way->ifindex;
	hop->next = way->next;
	hop->mtu = way->mtu;
	hop->checked = now;
	__builtin_memcpy(hop->header, header, sizeof(hop->header));
	__sync_lock_test_and_set((__u32 *)&hop->generation,
				 hop_word(generation + 2, way->sends_frames, way->source));
	return true;
}

/* 0 if a row says the same as `way` and its header. */
static __always_inline __u32 hop_difference(const struct hop *hop, const struct way *way,
					    const __u8 *header)
{
	const __u16 *one = (const __u16 *)hop->header, *other = (const __u16 *)header;
	__u32 difference = (hop->mtu ^ way->mtu) | (hop->source ^ way->source) |
			   (hop->sends_frames ^ way->sends_frames);

#pragma unroll
	for (int i = 0; i < 7; i++)
		difference |= one[i] ^ other[i];
	return difference;
}

/*
 * Finds or makes the row of a way, and sets way->hop. A row that says something else of the same
 * next hop is changed, and so goes out of force for all who keep it.
 */
static __always_inline void hop_keep(struct way *way, const __u8 *header, __u32 now)
{
	__u32 hash = (address_hash(&way->next) + way->ifindex) * 0x9e3779b1 >> (32 - HOP_BITS);
	struct hop *oldest = NULL;
	__u32 oldest_index = 0;

	way->hop = 0;
#pragma unroll
	for (__u32 i = 0; i < HOP_WAYS; i++) {
		__u32 index = hash ^ i, word;
		struct hop *hop = bpf_map_lookup_elem(&svc_hops, &index);

		if (!hop || !index)
			continue;
		word = READ_ONCE(*(__u32 *)&hop->generation);
		if (hop->ifindex == way->ifindex && !address_difference(&hop->next, &way->next)) {
			hop->checked = now;
			if (hop_difference(hop, way, header)) {
				if (!hop_fill(hop, word, way, header, now))
					return;
				word += 2;
			}
			way->hop = word & 1 ? 0 : hop_reference(index, word);
			return;
		}
		if (!oldest || !hop->ifindex ||
		    (oldest->ifindex && now - hop->checked > now - oldest->checked)) {
			oldest = hop;
			oldest_index = index;
		}
	}
	if (oldest && (!oldest->ifindex || (__s32)(now - oldest->checked) > HOP_REST)) {
		__u32 word = READ_ONCE(*(__u32 *)&oldest->generation);

		if (hop_fill(oldest, word, way, header, now))
			way->hop = hop_reference(oldest_index, word + 2);
	}
}

/* Which of this node's addresses an address is, 0 if none. Not static, so that the verifier follows
 * it once. */
__noinline __u32 source_find(const struct address *address)
{
	__u32 index = 0;
	const struct node *node = bpf_map_lookup_elem(&svc_node, &index);

	if (!node || !address)
		return 0;
#pragma nounroll
	for (__u32 i = 1; i < NODE_SOURCES; i = loop_next(i))
		if (!address_difference(&node->source[i], address))
			return i;
	return 0;
}

/* Whether an address is one of this node's. */
static __always_inline bool address_is_own(const struct address *address)
{
	return filter_lookup(address) & FILTER_NODE && source_find(address);
}

/* One of this node's addresses, NULL for index 0. */
static __always_inline const struct address *node_source(__u32 source)
{
	__u32 index = 0;
	const struct node *node = bpf_map_lookup_elem(&svc_node, &index);

	return node && source ? &node->source[source & (NODE_SOURCES - 1)] : NULL;
}

static __always_inline void fib_address(struct address *address, __u8 family, const __u32 *word)
{
	if (family == AF_INET)
		address_from_ipv4(address, word[0]);
	else
		address_from_words(address, word);
}

/*
 * Asks the kernel where it would send a packet that came in by `ifindex`: BPF_FIB_LKUP_RET_SUCCESS,
 * or what is in the way.
 */
static __always_inline long fib_ask(struct PROGRAM_CONTEXT *ctx, __u32 ifindex,
				    const struct tuple *tuple, struct bpf_fib_lookup *fib)
{
	const struct address *source = &tuple->source, *destination = &tuple->destination;
	bool ipv4 = address_is_ipv4(destination);

	fib->ifindex = ifindex;
	fib->family = ipv4 ? AF_INET : AF_INET6;
	fib->tot_len = 1; /* some length, for the kernel to tell the route's MTU */
	if (ipv4) {
		fib->ipv4_src = source->word[3];
		fib->ipv4_dst = destination->word[3];
	} else {
		__builtin_memcpy(fib->ipv6_src, source->word, sizeof(source->word));
		__builtin_memcpy(fib->ipv6_dst, destination->word, sizeof(destination->word));
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), fib_has_source ? FIB_LOOKUP_SRC : 0);
}

/*
 * Whether a packet that came in by `ifindex` goes to this node or to a pod of it, not on to another
 * node. Not static, so that the verifier follows it once.
 */
__noinline int leads_inside(struct PROGRAM_CONTEXT *ctx, __u32 ifindex, const struct tuple *tuple)
{
	struct bpf_fib_lookup fib = {};
	const struct device *device;
	long result;

	if (!tuple)
		return false;
	if (address_is_own(&tuple->destination))
		return true;
	result = fib_ask(ctx, ifindex, tuple, &fib);
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	device = device_lookup(fib.ifindex);
	return !device || device->is_inside;
}

/* This node's address that the kernel prefers, an index in svc_node; 0: none that is known. */
static __always_inline __u32 fib_source(const struct bpf_fib_lookup *fib, bool ipv4)
{
	struct address preferred;

	fib_address(&preferred, ipv4 ? AF_INET : AF_INET6, fib->ipv6_src);
	return source_find(&preferred);
}

/* Keeps a way as a row of svc_hops, with the header that leads there. */
static __always_inline void fib_keep(const struct bpf_fib_lookup *fib, bool ipv4, struct way *way)
{
	__u8 header[14] = {};

	__builtin_memcpy(header, fib->dmac, 6);
	__builtin_memcpy(header + 6, fib->smac, 6);
	*(__be16 *)(header + 12) = ipv4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	hop_keep(way, header, flow_now());
}

/*
 * The way that the kernel would send a packet that came in by `ifindex`. False: none. Not static,
 * so that the verifier follows it once.
 */
__noinline int fib_find(struct PROGRAM_CONTEXT *ctx, __u32 ifindex, const struct tuple *tuple,
			struct way *way)
{
	struct bpf_fib_lookup fib = {};
	const struct device *device;
	long result;
	bool ipv4;

	if (!tuple || !way)
		return false;
	ipv4 = address_is_ipv4(&tuple->destination);
	result = fib_ask(ctx, ifindex, tuple, &fib);
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	way->ifindex = fib.ifindex;
	way->mtu = result == BPF_FIB_LKUP_RET_SUCCESS ? fib.mtu_result : 0;
	fib_address(&way->next, fib.family, fib.ipv6_dst);
	device = device_lookup(fib.ifindex);
	way->sends_frames = device && device->sends_frames && result == BPF_FIB_LKUP_RET_SUCCESS;
	way->source = device ? ipv4 ? device->source_ipv4 : device->source_ipv6 : 0;
	if (fib_has_source) {
		__u32 found = fib_source(&fib, ipv4);

		way->source = found ? found : way->source;
	}
	fib_keep(&fib, ipv4, way);
	return true;
}

#endif
