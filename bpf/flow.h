/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections that pass through the node: lookup, insert, remove. The only file that knows how they
 * are stored: a set-associative table in an array, each flow one cache line, in one of two sets of
 * one page. A flow appears at once and is read whole; both halves of a connection come and go
 * together. Decides nothing about packets (docs/decisions/0012-flow-table.md).
 */
#ifndef BPFSVC_FLOW_H
#define BPFSVC_FLOW_H

#include "maps.h"
#include "packet.h"
#include "balance.h"

/* Elements of svc_flows less one, a power of two less one. */
const volatile __u32 flow_set_mask = 65535;

/* A processor that reorders reads (arm64): a flow is read with a barrier. */
const volatile bool reads_reorder = false;

#define FLOW_BUSY     1U
#define FLOW_IDENTITY ((1U << FLOW_STATE_SHIFT) - 1)
#define FLOW_CHECKED  ((1U << FLOW_PATH_SHIFT) - 1) /* busy, kind and protocol */
#define FLOW_SEQUENCE (FLOW_IDENTITY & ~((1U << FLOW_SEQUENCE_SHIFT) - 1))
#define FLOW_ATTEMPTS 3

/* A half tells the other after so many bits of the clock that it is in use. */
#define FLOW_TOUCH_BITS 5

/* How much is lost with a flow, from the least on. */
enum flow_rank {
	FLOW_RANK_OVER = 1,
	FLOW_RANK_CLOSED,
	FLOW_RANK_UNANSWERED,
	FLOW_RANK_ANSWERED,
};

/* What became of an insertion. */
enum flow_result {
	FLOW_INSERTED,
	FLOW_EXISTS, /* there is a flow that packets of this tuple belong to */
	FLOW_LOST,   /* others were faster at each attempt */
};

/* The clock of flows and hops: a little more than seconds. */
static __always_inline __u32 flow_now(void)
{
	return bpf_ktime_get_coarse_ns() >> FLOW_CLOCK_SHIFT;
}

static __always_inline __u32 flow_kind(__u32 lock)
{
	return lock >> FLOW_KIND_SHIFT & 3;
}

static __always_inline __u32 flow_protocol(__u32 lock)
{
	return lock >> FLOW_PROTOCOL_SHIFT & 3;
}

static __always_inline __u32 flow_path(__u32 lock)
{
	return lock >> FLOW_PATH_SHIFT & 3;
}

static __always_inline __u32 flow_source(__u32 lock)
{
	return lock >> FLOW_SOURCE_SHIFT & (NODE_SOURCES - 1);
}

static __always_inline __u32 flow_state(__u32 lock)
{
	return lock >> FLOW_STATE_SHIFT;
}

/* The lock of a flow yet to be inserted. */
static __always_inline __u32 flow_lock(enum flow_kind kind, __u32 protocol, enum flow_path path,
				       __u32 source)
{
	return kind << FLOW_KIND_SHIFT | protocol << FLOW_PROTOCOL_SHIFT | path << FLOW_PATH_SHIFT |
	       source << FLOW_SOURCE_SHIFT;
}

static __always_inline const struct node *node_get(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&svc_node, &index);
}

/*
 * NH of the tuple's words, keyed so that nobody can choose who shares a set with whom (Black et
 * al., UMAC, CRYPTO 1999), and mixed so that all bits of the result are as good.
 */
static __always_inline __u64 flow_hash(const struct tuple *tuple, const __u32 *key)
{
	const __be32 *source = tuple->source.word, *destination = tuple->destination.word;
	__u64 sum;

	sum = (__u64)(source[0] + key[0]) * (__u32)(destination[0] + key[1]);
	sum += (__u64)(source[1] + key[2]) * (__u32)(destination[1] + key[3]);
	sum += (__u64)(source[2] + key[4]) * (__u32)(destination[2] + key[5]);
	sum += (__u64)(source[3] + key[6]) * (__u32)(destination[3] + key[7]);
	sum += (__u64)(tuple_ports(tuple) + key[8]) * (__u32)(tuple->protocol + key[9]);
	sum = (sum ^ sum >> 32) * 0x9e3779b97f4a7c15;
	return sum ^ sum >> 32;
}

/* The two elements of svc_flows that a flow may be in. */
static __always_inline __u32 flow_first(__u64 hash)
{
	return hash & flow_set_mask;
}

static __always_inline __u32 flow_second(__u64 hash)
{
	__u32 index = flow_first(hash), step = 1 + (__u32)(hash >> 40) % (FLOW_GROUP - 1);

	return (index & ~(FLOW_GROUP - 1)) | ((index + step) & (FLOW_GROUP - 1));
}

/* What the endpoint sees as the client's address. */
static __always_inline const struct address *
flow_source_address(const struct flow *flow, __u32 lock, const struct node *node)
{
	__u32 source = flow_source(lock);

	return source ? &node->source[source & (NODE_SOURCES - 1)] : &flow->client;
}

/* 0 if a flow, whose lock has been read, is met by packets of this tuple. */
static __always_inline __u64 flow_difference(const struct flow *flow, __u32 lock,
					     const struct tuple *tuple, const struct node *node)
{
	__u32 forward = FLOW_FORWARD << FLOW_KIND_SHIFT | tuple->protocol << FLOW_PROTOCOL_SHIFT;
	__u32 reverse = FLOW_REVERSE << FLOW_KIND_SHIFT | tuple->protocol << FLOW_PROTOCOL_SHIFT;

	if ((lock & FLOW_CHECKED) == forward) {
		if (*(const __u32 *)&flow->client_port != tuple_ports(tuple))
			return 1;
		return address_pair_difference(&flow->client, &tuple->source) |
		       address_pair_difference(&flow->frontend, &tuple->destination);
	}
	if ((lock & FLOW_CHECKED) == reverse) {
		if (*(const __u32 *)&flow->backend_port != tuple_ports(tuple))
			return 1;
		return address_pair_difference(&flow->backend, &tuple->source) |
		       address_pair_difference(flow_source_address(flow, lock, node),
					       &tuple->destination);
	}
	return 1;
}

/* Whether packets of this tuple meet a flow; if so, says where it is as flow_lookup() does. */
static __always_inline bool flow_match(const struct flow *flow, __u32 number,
				       const struct tuple *tuple, const struct node *node,
				       __u64 *found)
{
	__u32 lock = READ_ONCE(flow->lock);

	if (flow_difference(flow, lock, tuple, node))
		return false;
	*found = (__u64)lock << 32 | number;
	return true;
}

static __always_inline struct flow *flow_lookup_in(__u32 index, const struct tuple *tuple,
						   const struct node *node, __u64 *found)
{
	struct flow_set *set = bpf_map_lookup_elem(&svc_flows, &index);
	__u32 number = index * FLOW_WAYS + 1;

	if (!set)
		return NULL;
	_Static_assert(FLOW_WAYS == 4, "clang 14 does not unroll this loop");
	if (flow_match(&set->way[0], number, tuple, node, found))
		return &set->way[0];
	if (flow_match(&set->way[1], number + 1, tuple, node, found))
		return &set->way[1];
	if (flow_match(&set->way[2], number + 2, tuple, node, found))
		return &set->way[2];
	if (flow_match(&set->way[3], number + 3, tuple, node, found))
		return &set->way[3];
	return NULL;
}

/*
 * Whether no connection may begin for the moment: half of the programs would not know it. The agent
 * says until when, so that its death ends it, too.
 */
static __always_inline bool flows_are_held(void)
{
	const struct node *node = node_get();

	return node && node->held_until && bpf_ktime_get_coarse_ns() < node->held_until;
}

/* The flow that flow_lookup() found, NULL if nothing. */
static __always_inline struct flow *flow_at(__u64 found)
{
	__u32 number = (__u32)found - 1, index = number / FLOW_WAYS;
	struct flow_set *set;

	if (!(__u32)found)
		return NULL;
	set = bpf_map_lookup_elem(&svc_flows, &index);
	return set ? &set->way[number % FLOW_WAYS] : NULL;
}

/* Copies a flow whose lock has been read. False: it has become another's meanwhile. */
static __always_inline bool flow_copy(const struct flow *flow, __u32 lock, struct flow *copy)
{
	barrier();
	*copy = *flow;
	barrier();
	copy->lock = reads_reorder ? __sync_fetch_and_add((__u32 *)&flow->lock, 0) :
				     READ_ONCE(flow->lock);
	return !((copy->lock ^ lock) & FLOW_IDENTITY);
}

/* Reads what a lookup will of a set, so that it comes in while something else is waited for. */
static __always_inline void flow_set_prefetch(__u32 index)
{
	const struct flow_set *set = bpf_map_lookup_elem(&svc_flows, &index);

	if (!set)
		return;
	READ_ONCE(set->way[0].lock);
	READ_ONCE(set->way[1].lock);
	READ_ONCE(set->way[2].lock);
	READ_ONCE(set->way[3].lock);
}

/*
 * The hash of a tuple that a flow is about to be inserted for. Memory is slow: the two sets that it
 * may be in are on their way when this returns. Not static, so that the verifier follows it once.
 */
__noinline __u64 flow_prefetch(const struct tuple *tuple)
{
	const struct node *node = node_get();
	__u64 hash;

	if (!tuple || !node)
		return 0;
	hash = flow_hash(tuple, node->hash_key);
	flow_set_prefetch(flow_first(hash));
	flow_set_prefetch(flow_second(hash));
	return hash;
}

/*
 * Where the flow is that packets of this tuple belong to, 0 if there is none: one more than its
 * number in svc_flows, and its lock in the upper half. If wanted with a copy to read from: the flow
 * itself may be another's at any moment, and is only to be marked. Not static, so that the verifier
 * follows it once, and its callers not once for each place that it may find.
 */
__noinline __u64 flow_lookup(const struct tuple *tuple, __u64 hash, struct flow *copy)
{
	const struct node *node = node_get();
	const struct flow *flow;
	__u64 found = 0;

	if (!tuple || !node)
		return 0;
	flow = flow_lookup_in(flow_first(hash), tuple, node, &found);
	if (!flow)
		flow = flow_lookup_in(flow_second(hash), tuple, node, &found);
	if (!flow || (copy && !flow_copy(flow, found >> 32, copy)))
		return 0;
	return found;
}

/* The packets that a flow of this content and kind is met by. */
static __always_inline void flow_tuple(const struct flow *flow, __u32 lock, __u32 kind,
				       const struct node *node, struct tuple *tuple)
{
	tuple->protocol = flow_protocol(lock);
	if (kind == FLOW_FORWARD) {
		tuple->source = flow->client;
		tuple->destination = flow->frontend;
		*(__u32 *)&tuple->source_port = *(const __u32 *)&flow->client_port;
		return;
	}
	tuple->source = flow->backend;
	tuple->destination = *flow_source_address(flow, lock, node);
	*(__u32 *)&tuple->source_port = *(const __u32 *)&flow->backend_port;
}

/* What becomes of a packet that met a flow: the other side's tuple, turned around. */
static __always_inline void flow_wanted(const struct flow *flow, const struct node *node,
					struct tuple *tuple)
{
	tuple->protocol = flow_protocol(flow->lock);
	if (flow_kind(flow->lock) == FLOW_FORWARD) {
		tuple->source = *flow_source_address(flow, flow->lock, node);
		tuple->destination = flow->backend;
		tuple->source_port = flow->source_port;
		tuple->destination_port = flow->backend_port;
		return;
	}
	tuple->source = flow->frontend;
	tuple->destination = flow->client;
	tuple->source_port = flow->frontend_port;
	tuple->destination_port = flow->client_port;
}

static __always_inline bool flow_is_closed(__u32 lock)
{
	__u32 state = flow_state(lock);

	return state & FLOW_RESET || !(~state & (FLOW_CLOSED | FLOW_PEER_CLOSED));
}

/* Another CPU's packet may have come when the clock went on since `now` was read: just now. */
static __always_inline __u16 flow_idle(const struct flow *flow, __u32 now)
{
	__u16 idle = now - READ_ONCE(flow->last_used);

	return idle > 0xffff - FLOW_CLOCK_AHEAD ? 0 : idle;
}

/* How long a flow may be without packets before it counts as over. */
static __always_inline __u32 flow_patience(__u32 lock)
{
	if (flow_is_closed(lock))
		return FLOW_IDLE_CLOSED;
	if (!(flow_state(lock) & FLOW_REPLIED))
		return FLOW_IDLE_UNREPLIED;
	if (flow_state(lock) & (FLOW_CLOSED | FLOW_PEER_CLOSED))
		return FLOW_IDLE_HALF_CLOSED;
	return flow_protocol(lock) == FLOW_UDP ? FLOW_IDLE_UDP : FLOW_IDLE_TCP;
}

/*
 * What is lost with a flow that has been without packets for so long, least for the lowest: those
 * that are over, then closed ones, unanswered ones, and of equals the one idle the longest. Not
 * static, so that the verifier follows it once.
 */
__noinline __u32 flow_worth(__u32 lock, __u32 idle)
{
	__u32 rank = FLOW_RANK_ANSWERED;

	if (lock & FLOW_BUSY)
		return ~0U;
	if (idle > flow_patience(lock))
		rank = FLOW_RANK_OVER;
	else if (flow_is_closed(lock))
		rank = FLOW_RANK_CLOSED;
	else if (!(flow_state(lock) & FLOW_REPLIED))
		rank = FLOW_RANK_UNANSWERED;
	return rank << 16 | (0xffff - (idle & 0xffff));
}

/* Frees a flow's place, if it is still the one that the lock was read of. */
static __always_inline void flow_free(struct flow *flow, __u32 lock)
{
	__u32 next = (lock + (1U << FLOW_SEQUENCE_SHIFT)) & FLOW_SEQUENCE;

	__sync_val_compare_and_swap(&flow->lock, lock, next);
}

/* The number in svc_flows of the i-th of the places that a flow may have. */
static __always_inline __u32 flow_candidate(__u64 hash, __u32 i)
{
	__u32 index = i < FLOW_WAYS ? flow_first(hash) : flow_second(hash);

	return index * FLOW_WAYS + i % FLOW_WAYS;
}

/* 0 if two flows are of one connection. */
static __always_inline __u64 flow_content_difference(const struct flow *one,
						     const struct flow *other)
{
	return (*(const __u64 *)&one->client_port ^ *(const __u64 *)&other->client_port) |
	       address_pair_difference(&one->client, &other->client) |
	       address_pair_difference(&one->frontend, &other->frontend) |
	       address_pair_difference(&one->backend, &other->backend);
}

/*
 * Removes one half of a connection, if it is there; the lock says all but the kind of a flow that
 * may be busy. Another one that packets of its tuple meet, as there may be for the moment that two
 * CPUs insert it, stays. Not static, so that the verifier follows it once.
 */
__noinline int flow_remove(const struct flow *flow, __u32 lock, __u32 kind)
{
	const struct node *node = node_get();
	struct tuple tuple;
	__u32 wanted;
	__u64 hash;

	if (!flow || !node)
		return 0;
	flow_tuple(flow, lock, kind, node, &tuple);
	hash = flow_hash(&tuple, node->hash_key);
	wanted = kind << FLOW_KIND_SHIFT | tuple.protocol << FLOW_PROTOCOL_SHIFT;
#pragma nounroll
	for (__u32 i = 0; i < 2 * FLOW_WAYS; i = loop_next(i)) {
		struct flow *place = flow_at(flow_candidate(hash, i) + 1);
		__u32 found;

		if (!place)
			break;
		found = READ_ONCE(place->lock);
		if ((found & FLOW_CHECKED) == wanted && !flow_content_difference(place, flow))
			flow_free(place, found);
	}
	return 0;
}

static __always_inline __u32 flow_other_kind(__u32 lock)
{
	return FLOW_FORWARD + FLOW_REVERSE - flow_kind(lock);
}

/* Removes both halves of a connection. */
static __always_inline void flow_end(const struct flow *flow, __u32 lock)
{
	flow_remove(flow, lock, FLOW_FORWARD);
	flow_remove(flow, lock, FLOW_REVERSE);
}

/*
 * The place where least is lost by a new flow, of free ones in the emptier set: its number in
 * svc_flows and one, and in the upper half the lock that this was judged by, which must still be
 * there when the place is taken. 0 if there is none. Never the new one's other half. Not static, so
 * that the verifier follows it once.
 */
__noinline __u64 flow_search(const struct flow *flow, __u64 hash)
{
	__u64 least = ~0ULL, found = 0;

	if (!flow)
		return 0;
#pragma nounroll
	for (__u32 i = 0; i < 2 * FLOW_WAYS; i = loop_next(i)) {
		__u32 number = flow_candidate(hash, i), worth, lock;
		const struct flow *place = flow_at(number + 1);

		if (!place)
			break;
		lock = READ_ONCE(place->lock);
		if (!(lock & FLOW_CHECKED))
			worth = i % FLOW_WAYS; /* free: sets fill up from the first on */
		else if (flow_content_difference(place, flow))
			worth = flow_worth(lock, flow_idle(place, flow->last_used));
		else
			continue;
		if (worth < least) {
			least = worth;
			found = (__u64)lock << 32 | (number + 1);
		}
	}
	return found;
}

/*
 * How many flows there are that packets of this tuple meet: one, unless two CPUs have inserted it
 * at the same time. Not static, so that the verifier follows it once.
 */
__noinline __u32 flow_count(const struct tuple *tuple, __u64 hash)
{
	const struct node *node = node_get();
	__u32 count = 0;

	if (!tuple || !node)
		return 0;
#pragma nounroll
	for (__u32 i = 0; i < 2 * FLOW_WAYS; i = loop_next(i)) {
		const struct flow *flow = flow_at(flow_candidate(hash, i) + 1);

		if (flow)
			count += !flow_difference(flow, READ_ONCE(flow->lock), tuple, node);
	}
	return count;
}

/* Fills a place that has been taken: nobody reads it before its lock is written. */
static __always_inline void flow_fill(struct flow *place, const struct flow *flow, __u32 lock)
{
	place->last_used = flow->last_used;
	place->hop = flow->hop;
	*(__u64 *)&place->client_port = *(const __u64 *)&flow->client_port;
	place->client = flow->client;
	place->frontend = flow->frontend;
	place->backend = flow->backend;
	__sync_lock_test_and_set(&place->lock, lock);
}

/* Whether a flow that was found is over, and has been removed. */
static __always_inline bool flow_expire(__u64 found, __u32 now)
{
	struct flow *flow = flow_at(found);
	__u32 lock = found >> 32;

	if (!flow || flow_idle(flow, now) <= flow_patience(lock))
		return false;
	flow_end(flow, lock);
	return true;
}

/*
 * Writes a flow to a place that is free, or whose flow is worth the least. The number of the place
 * and one, and the flow's lock in the upper half; 0: others were faster at each attempt. Not
 * static, so that the verifier follows it once.
 */
__noinline __u64 flow_place(const struct flow *flow, __u64 hash)
{
	if (!flow)
		return 0;
#pragma nounroll
	for (__u32 attempt = 0; attempt < FLOW_ATTEMPTS; attempt = loop_next(attempt)) {
		__u64 found = flow_search(flow, hash);
		__u32 lock = found >> 32, next;
		struct flow *place = flow_at(found);

		if (!place)
			return 0;
		next = (lock + (1U << FLOW_SEQUENCE_SHIFT)) & FLOW_SEQUENCE;
		if (lock & FLOW_BUSY ||
		    __sync_val_compare_and_swap(&place->lock, lock, next | FLOW_BUSY) != lock)
			continue;
		if (flow_kind(lock) != FLOW_FREE) { /* its other half goes with it */
			if (flow_worth(lock, flow_idle(place, flow->last_used)) >> 16 >
			    FLOW_RANK_CLOSED)
				reason_count(REASON_FLOW_EVICTED);
			flow_remove(place, lock, flow_other_kind(lock));
		}
		next |= flow->lock & ~FLOW_SEQUENCE & FLOW_IDENTITY;
		flow_fill(place, flow, next);
		return (__u64)next << 32 | (__u32)found;
	}
	return 0;
}

/* Inserts the forward half of a connection, of which flow_lookup() has found none. */
static __always_inline enum flow_result flow_insert(const struct flow *flow, __u64 hash)
{
	/* Should another CPU have done the same, one of the two is never met, and ends of itself.
	 */
	return flow_place(flow, hash) ? FLOW_INSERTED : FLOW_LOST;
}

/*
 * Inserts the reverse half of a connection, met by packets of this tuple, unless there is such a
 * flow: two connections cannot have it. Two CPUs that do so at the same time may both find it
 * there, and neither then has it. Not static, so that the verifier follows it once.
 */
__noinline int flow_insert_alone(const struct flow *flow, const struct tuple *tuple, __u64 hash)
{
	struct flow *place;
	__u64 found;

	if (!flow || !tuple)
		return FLOW_LOST;
	found = flow_lookup(tuple, hash, NULL);
	if (found && !flow_expire(found, flow->last_used))
		return FLOW_EXISTS;
	found = flow_place(flow, hash);
	if (!found)
		return FLOW_LOST;
	if (flow_count(tuple, hash) == 1)
		return FLOW_INSERTED;
	place = flow_at(found);
	if (place)
		flow_free(place, found >> 32);
	return FLOW_EXISTS;
}

/* Notes with one half what is known of its connection, and that it is in use. */
static __always_inline void flow_note_half(const struct flow *copy, __u32 kind, __u32 state)
{
	const struct node *node = node_get();
	struct tuple tuple;
	struct flow *flow;
	__u64 found;

	if (!node)
		return;
	flow_tuple(copy, copy->lock, kind, node, &tuple);
	found = flow_lookup(&tuple, flow_hash(&tuple, node->hash_key), NULL);
	flow = flow_at(found);
	if (!flow)
		return;
	((__u8 *)&flow->lock)[3] = flow_state(found >> 32) | state;
	flow->last_used = flow_now();
}

/* Notes what a packet tells of its connection with both halves. Not static, so that the verifier
 * follows it once. */
__noinline int flow_note(const struct flow *copy, __u32 own, __u32 other)
{
	if (!copy)
		return 0;
	flow_note_half(copy, flow_kind(copy->lock), own);
	flow_note_half(copy, flow_other_kind(copy->lock), other);
	return 0;
}

/* Says where packets go that meet the flow that flow_lookup() found, if any. */
static __always_inline void flow_lead(__u64 found, __u16 hop)
{
	struct flow *flow = flow_at(found);

	if (flow)
		flow->hop = hop;
}

/* Says that the flow that flow_lookup() found is in use. */
static __always_inline void flow_touch(__u64 found, __u32 now)
{
	struct flow *flow = flow_at(found);

	if (flow)
		flow->last_used = now;
}

/*
 * What a packet tells of a connection that counts as unreplied. One of TCP or SCTP does until its
 * client goes on after an answer: who floods with forged addresses gets answers, too, but does not.
 */
static __always_inline __u32 flow_answer(const struct flow *copy, const struct packet *packet)
{
	__u32 state = flow_state(copy->lock);

	if (flow_kind(copy->lock) == FLOW_REVERSE)
		return flow_protocol(copy->lock) == FLOW_UDP ? FLOW_REPLIED :
							       FLOW_ANSWERED & ~state;
	if (packet->tcp_flags & TCP_SYN)
		return 0;
	/* In a tunnel's flow no reply is seen: that the client goes on tells of one. */
	return flow_path(copy->lock) == FLOW_TUNNEL || state & FLOW_ANSWERED ? FLOW_REPLIED : 0;
}

/* A packet met the flow that flow_lookup() found: notes that it lives, is answered, or ends. */
static __always_inline void flow_meet(__u64 found, const struct flow *copy,
				      const struct packet *packet, __u32 now)
{
	__u32 state = flow_state(copy->lock);
	bool is_tunnel = flow_path(copy->lock) == FLOW_TUNNEL;
	__u32 own = 0, other = 0, since;

	since = copy->last_used ^ (__u16)now;
	if (since)
		flow_touch(found, now);
	if (!(state & FLOW_REPLIED))
		own = other = flow_answer(copy, packet);
	if (packet->tcp_flags & TCP_FIN && !(state & FLOW_CLOSED)) {
		own |= is_tunnel ? FLOW_CLOSED | FLOW_PEER_CLOSED : FLOW_CLOSED;
		other |= FLOW_PEER_CLOSED;
	}
	if (packet->tcp_flags & TCP_RST && !(state & FLOW_RESET)) {
		own |= FLOW_RESET;
		other |= FLOW_RESET;
	}
	if (own | other | since >> FLOW_TOUCH_BITS)
		flow_note(copy, own, other);
}

/* Whether a packet that met a flow begins another connection instead. */
static __always_inline bool flow_is_over(const struct flow *copy, const struct packet *packet,
					 __u32 now)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	       flow_kind(copy->lock) == FLOW_FORWARD &&
	       (flow_is_closed(copy->lock) || flow_idle(copy, now) > 1);
}

#endif
