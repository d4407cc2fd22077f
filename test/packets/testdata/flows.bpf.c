/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections that begin, are looked up and end on several CPUs at once, in the table of
 * bpf/flow.h, by what inserts them in the packet path. What a flow holds follows from who its
 * client is and from one random number, so that each look at it can be judged. race.ts starts it.
 */
#define PROGRAM_CONTEXT __sk_buff
#include "maps.h"
#include "packet.h"
#include "balance.h"
#include "flow.h"
#include "forward.h"
#include "passage.h"

/* What is left out, to see that it is missed. */
enum without {
	WITHOUT_NOTHING = 0,
	WITHOUT_RECHECK = 1, /* the lock is not read again after what it protects */
	WITHOUT_BUSY = 2,    /* a place that is being written looks like a free one */
	WITHOUT_WHOLE = 3,   /* of addresses, a hash of 8 bits is compared */
	WITHOUT_ALONE = 4,   /* nobody looks whether another CPU has inserted the same */
};

/* What a racer has seen; race.ts names them in this order. */
enum count {
	COUNT_LOOKUPS,
	COUNT_FOUND,
	COUNT_INSERTED,
	COUNT_PORT_CHANGED, /* of those: with another port, since the client's was taken */
	COUNT_LOST,
	COUNT_ENDED,
	COUNT_TORN,	/* a flow whose parts do not belong together */
	COUNT_STRANGER, /* one that is whole, and another client's */
	COUNT_HALF,	/* a connection whose replies have no flow */
	COUNT_SHARED,	/* one whose replies go to another client */
	COUNT_CHANGES,	/* odd while this racer begins or ends a connection */
	COUNT_COUNT = 16,
};

struct stats {
	__u64 value[COUNT_COUNT];
};

const volatile __u32 reader = 0;
const volatile __u32 reader_count = 2;
const volatile __u32 without = WITHOUT_NOTHING;
/* Clients that there are; of each every reader_count-th begins and ends at one reader. */
const volatile __u32 clients = 1;
/* 1: all clients would like the same port, so that replies to them differ in nothing else. */
const volatile bool same_port = false;
/* 1: connections never give way to others, so that both halves are there or none. */
const volatile bool is_ample = false;
/* The longest pause in the middle of a read and of a write, that what may go wrong does. */
const volatile __u32 pause_ns = 0;

#define MOST_TURNS (1 << 22)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct stats);
} race_stats SEC(".maps");

static long turn(__u32 index, const __u64 *until)
{
	return bpf_ktime_get_ns() >= *until;
}

static __noinline int pause(void)
{
	__u64 until = bpf_ktime_get_ns() + ((__u64)bpf_get_prandom_u32() * pause_ns >> 32);

	bpf_loop(MOST_TURNS, turn, &until, 0);
	return 0;
}

static __always_inline void note(struct stats *stats, enum count count)
{
	stats->value[count]++;
}

/* Who asks, by number. */
static __always_inline void tuple_make(struct tuple *tuple, __u32 client)
{
	tuple->source = (struct address){ { 0xfd, client, ~client, client * 0x9e3779b1 } };
	tuple->destination = (struct address){ { 0xfd, 1, 2, client * 0x85ebca77 } };
	tuple->source_port = bpf_htons(same_port ? 2000 : 2000 + client);
	tuple->destination_port = bpf_htons(80);
	tuple->protocol = FLOW_TCP;
}

/* The endpoint that a client got: with one port for all, one for all. */
static __always_inline void backend_make(struct flow *flow, __u32 random)
{
	__u32 word = same_port ? 7 : random;

	flow->backend = (struct address){ { 0xfe, word, ~word, word * 0xc2b2ae3d } };
	flow->backend_port = word * 31;
}

static __always_inline bool address_is_torn(const struct address *address, __u32 factor)
{
	return address->word[2] != ~address->word[1] ||
	       address->word[3] != address->word[1] * factor;
}

/* Whether all parts of a flow are of one connection. */
static __always_inline bool flow_is_torn(const struct flow *flow)
{
	return address_is_torn(&flow->client, 0x9e3779b1) ||
	       address_is_torn(&flow->backend, 0xc2b2ae3d) ||
	       flow->frontend.word[3] != flow->client.word[1] * 0x85ebca77 ||
	       flow->backend_port != (__u16)(flow->backend.word[1] * 31) ||
	       flow->client_port != bpf_htons(same_port ? 2000 : 2000 + flow->client.word[1]);
}

/* flow_lookup() with a pause, and as it would be if the lock were not read again after it. */
static __always_inline bool lookup_slowly(const struct tuple *tuple, __u64 hash, struct flow *copy)
{
	__u64 found = flow_lookup(tuple, hash, NULL);
	const struct flow *flow = flow_at(found);

	if (!flow)
		return false;
	pause();
	*copy = *flow;
	barrier();
	copy->lock = without == WITHOUT_RECHECK ? found >> 32 : READ_ONCE(flow->lock);
	return !((copy->lock ^ (__u32)(found >> 32)) & FLOW_IDENTITY);
}

/* flow_lookup() as it would be if hashes were compared in place of addresses. */
static __always_inline bool lookup_loosely(const struct tuple *tuple, __u64 hash, struct flow *copy)
{
#pragma nounroll
	for (__u32 i = 0; i < 2 * FLOW_WAYS; i = loop_next(i)) {
		struct flow *flow = flow_at(flow_candidate(hash, i) + 1);
		__u32 lock, difference;

		if (!flow)
			return false;
		lock = READ_ONCE(flow->lock);
		*copy = *flow;
		copy->lock = READ_ONCE(flow->lock);
		difference = address_hash(&copy->client) ^ address_hash(&tuple->source);
		if (copy->lock == lock && flow_kind(lock) == FLOW_FORWARD && !(lock & FLOW_BUSY) &&
		    !(difference & 0xff))
			return true;
	}
	return false;
}

static __always_inline bool lookup(const struct tuple *tuple, struct flow *copy)
{
	const struct node *node = node_get();
	__u64 hash;

	if (!node)
		return false;
	hash = flow_hash(tuple, node->hash_key);
	if (without == WITHOUT_WHOLE)
		return lookup_loosely(tuple, hash, copy);
	return pause_ns ? lookup_slowly(tuple, hash, copy) : flow_lookup(tuple, hash, copy);
}

/*
 * flow_insert() with a pause, and as it would be if the place were not busy while it is filled. Of
 * one half alone.
 */
static __always_inline int insert_slowly(const struct flow *flow, __u64 hash)
{
	__u64 found = flow_search(flow, hash);
	__u32 lock = found >> 32, next;
	__u32 busy = without == WITHOUT_BUSY ? 0 : FLOW_BUSY;
	struct flow *place = flow_at(found);

	if (!place)
		return FLOW_LOST;
	next = (lock + (1U << FLOW_SEQUENCE_SHIFT)) & FLOW_SEQUENCE;
	if (lock & FLOW_BUSY ||
	    __sync_val_compare_and_swap(&place->lock, lock, next | busy) != lock)
		return FLOW_LOST;
	*(__u64 *)&place->client_port = *(const __u64 *)&flow->client_port;
	place->client = flow->client;
	place->frontend = flow->frontend;
	pause();
	place->backend = flow->backend;
	place->last_used = flow->last_used;
	__sync_lock_test_and_set(&place->lock,
				 next | (flow->lock & ~FLOW_SEQUENCE & FLOW_IDENTITY));
	return FLOW_INSERTED;
}

/* passage_insert() as it would be if the first to find a port free could have it. */
static __always_inline int insert_unasked(struct passage *passage, const struct node *node)
{
	struct flow *flow = &passage->flow;
	__u64 hash;

	flow->lock ^= FLOW_OTHER_KIND;
	flow_tuple(flow, flow->lock, FLOW_REVERSE, node, &passage->wanted);
	hash = flow_hash(&passage->wanted, node->hash_key);
	if (flow_lookup(&passage->wanted, hash, NULL) || !flow_place(flow, hash))
		return FLOW_LOST;
	flow->lock ^= FLOW_OTHER_KIND;
	return flow_insert(flow, passage->hash);
}

static __always_inline int insert(struct __sk_buff *ctx, struct passage *passage,
				  const struct node *node)
{
	passage->hash = flow_hash(&passage->packet.tuple, node->hash_key);
	if (without == WITHOUT_ALONE)
		return insert_unasked(passage, node);
	if (pause_ns)
		return insert_slowly(&passage->flow, passage->hash);
	return passage_insert(ctx, passage);
}

static __always_inline void begin(struct __sk_buff *ctx, struct passage *passage,
				  const struct node *node, struct stats *stats)
{
	const struct tuple *tuple = &passage->packet.tuple;
	struct flow *flow = &passage->flow;

	flow->lock = flow_lock(FLOW_FORWARD, FLOW_TCP, FLOW_REDIRECT, 1);
	flow->last_used = flow_now();
	flow->hop = 0;
	flow->client = tuple->source;
	flow->frontend = tuple->destination;
	flow->client_port = tuple->source_port;
	flow->frontend_port = tuple->destination_port;
	flow->source_port = tuple->source_port;
	backend_make(flow, bpf_get_prandom_u32());
	if (insert(ctx, passage, node) != FLOW_INSERTED) {
		note(stats, COUNT_LOST);
		return;
	}
	note(stats, COUNT_INSERTED);
	if (flow->source_port != tuple->source_port)
		note(stats, COUNT_PORT_CHANGED);
}

/* How often the racers have begun or ended something, 0 while one is at it. */
static __always_inline __u64 changes_read(void)
{
	__u64 sum = 2;

#pragma unroll
	for (__u32 i = 0; i < 2; i++) {
		__u32 row = i;
		const struct stats *stats = bpf_map_lookup_elem(&race_stats, &row);
		__u64 changes = stats ? READ_ONCE(stats->value[COUNT_CHANGES]) : 1;

		if (changes & 1)
			return 0;
		sum += changes;
	}
	return sum;
}

/* Looks whether replies to a client reach it, while nobody changes anything. */
static __always_inline void judge_replies(struct passage *passage, struct flow *found,
					  const struct node *node, struct stats *stats)
{
	__u64 changes = changes_read();
	bool is_there, is_own;

	barrier();
	if (!is_ample || !changes || !lookup(&passage->packet.tuple, found))
		return;
	flow_tuple(found, found->lock, FLOW_REVERSE, node, &passage->wanted);
	is_there = lookup(&passage->wanted, &passage->flow);
	is_own = is_there && !flow_content_difference(found, &passage->flow);
	barrier();
	if (!is_own && changes_read() == changes)
		note(stats, is_there ? COUNT_SHARED : COUNT_HALF);
}

/* Begins or ends a connection, so that the others know. */
static __always_inline void change(struct __sk_buff *ctx, struct passage *passage,
				   const struct flow *found, struct stats *stats)
{
	const struct node *node = node_get();

	__sync_fetch_and_add(&stats->value[COUNT_CHANGES], 1);
	if (found) {
		flow_end(found, found->lock);
		note(stats, COUNT_ENDED);
	} else if (node) {
		begin(ctx, passage, node, stats);
	}
	__sync_fetch_and_add(&stats->value[COUNT_CHANGES], 1);
}

SEC("tc")
int look(struct __sk_buff *ctx)
{
	__u32 random = bpf_get_prandom_u32(), row = reader, client = random % clients;
	struct stats *stats = bpf_map_lookup_elem(&race_stats, &row);
	struct passage *passage = passage_get();
	const struct node *node = node_get();
	struct flow found = {};

	if (!stats || !passage || !node)
		return 1;
	tuple_make(&passage->packet.tuple, client);
	note(stats, COUNT_LOOKUPS);
	if (!lookup(&passage->packet.tuple, &found)) {
		if (client % reader_count == reader)
			change(ctx, passage, NULL, stats);
		return 0;
	}
	note(stats, COUNT_FOUND);
	if (flow_is_torn(&found))
		note(stats, COUNT_TORN);
	else if (found.client.word[1] != client)
		note(stats, COUNT_STRANGER);
	else if (random >> 28)
		judge_replies(passage, &found, node, stats);
	else if (client % reader_count == reader)
		change(ctx, passage, &found, stats);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
