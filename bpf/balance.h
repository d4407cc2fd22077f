/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From an address to a frontend to a backend. Sees no packet and no socket, so every hook decides
 * alike. A reader may meet entries that the agent is changing: each step proves that what it read
 * belongs to the step before, and balance() starts again if it does not.
 */
#ifndef BPFSVC_BALANCE_H
#define BPFSVC_BALANCE_H

#include <bpf/bpf_endian.h>
#include "maps.h"
#include "address.h"

#define BALANCE_ATTEMPTS 4
#define NANOSECONDS	 1000000000ULL

enum verdict {
	VERDICT_NONE, /* not a Service's address: leave it alone */
	VERDICT_FORWARD,
	VERDICT_REFUSE,
	VERDICT_DROP,
	VERDICT_RETRY, /* an entry changed under the reader; never returned by balance() */
};

/* What a hook asks, and what it knows of the asker. */
struct request {
	struct frontend_key key;
	__u64 keep; /* reference to the endpoint that this asker had before and stays with, or 0 */
	void *context; /* for the questions below */
};

/* What is known of where a request comes from. */
enum source {
	SOURCE_UNKNOWN,
	SOURCE_NODE, /* a process of this node, whose address is not known yet */
	SOURCE_ADDRESS,
};

/* What a hook answers only when asked, because it costs: a hash that spreads new connections, */
static __always_inline __u32 request_hash(const struct request *request);
/* who the client is, for ClientIP affinity, */
static __always_inline void request_client(const struct request *request, struct address *client);
/* whether it is a pod or the node, for external frontends (semantics §6.3), */
static __always_inline bool request_inside(const struct request *request);
/* and its source, for source ranges; the address is set for SOURCE_ADDRESS. */
static __always_inline enum source request_source(const struct request *request,
						  struct address *address);

/* What balance() found: an endpoint for VERDICT_FORWARD, a reason for the refusals. */
struct choice {
	struct address address;
	__u64 reference; /* backend id | generation << 32 */
	__u32 service;
	__be16 port;
	enum table table;
	enum reason reason;
};

static __always_inline void reason_count(enum reason reason)
{
	__u32 index = reason;
	__u64 *counter = bpf_map_lookup_elem(&svc_reasons, &index);

	if (counter)
		(*counter)++;
}

/* A hash of a frontend's key, for the bucket and for the value's check. The agent has the same. */
static __always_inline __u32 frontend_hash(const struct frontend_key *key)
{
	const __u32 *last = (const __u32 *)&key->port;

	return sum_mix(address_sum(&key->address) + *last * 0x165667b1);
}

static __always_inline bool key_equal(const struct frontend_key *a, const struct frontend_key *b)
{
	return !(address_difference(&a->address, &b->address) | (a->port ^ b->port) |
		 (a->protocol ^ b->protocol));
}

/* Counts the agent's writes; odd while it writes. */
static __always_inline __u64 sequence_read(void)
{
	__u32 index = 0;
	const struct meta *meta = bpf_map_lookup_elem(&svc_meta, &index);

	return meta ? READ_ONCE(meta->sequence) : 0;
}

/*
 * The frontend's u64 in svc_overflow, 0 if there is none. The kernel can recycle an element for
 * another key under a reader: the check tells, and that the key still leads there. It replaces one
 * by inserting the new one ahead and unlinking the old one: a reader between the two finds neither,
 * and looks again if it was so.
 */
static __noinline __u64 overflow_lookup(const struct frontend_key *wanted, __u32 hash)
{
	/* Linux 6.1 takes no key from memory that a function which is not static was given. */
	struct frontend_key key = *wanted;

#pragma nounroll
	for (__u32 attempt = 0; attempt < BALANCE_ATTEMPTS; attempt = loop_next(attempt)) {
		__u64 sequence = sequence_read();
		const __u64 *value = bpf_map_lookup_elem(&svc_overflow, &key);
		__u64 word = value ? READ_ONCE(*value) : 0;

		/* Keys of one bucket share bits of the check, so it alone is not proof enough. */
		if (value && word >> 40 == hash >> 8 &&
		    bpf_map_lookup_elem(&svc_overflow, &key) == value && READ_ONCE(*value) == word)
			return word;
		if (!value && !(sequence & 1) && sequence == sequence_read())
			return 0;
	}
	return 0;
}

/* What svc_filter says of an address: some of FILTER_FRONTEND, FILTER_WILDCARD, FILTER_ENDPOINT. */
static __always_inline __u32 filter_lookup(const struct address *address)
{
	__u32 position = address_hash(address) % (FILTER_WORDS * FILTER_POSITIONS);
	__u32 index = position / FILTER_POSITIONS;
	const __u64 *word = bpf_map_lookup_elem(&svc_filter, &index);

	return word ? READ_ONCE(*word) >> position % FILTER_POSITIONS * 4 & 15 : 0;
}

/* The u64 of the key's own struct frontend, 0 if there is none: one bucket and mostly no call. */
static __always_inline __u64 frontend_lookup(const struct frontend_key *key)
{
	__u32 hash = frontend_hash(key), index = hash % FRONTEND_BUCKETS;
	const struct frontend_bucket *bucket = bpf_map_lookup_elem(&svc_frontends, &index);

	if (!bucket)
		return 0;
#pragma unroll
	for (int place = 0; place < FRONTEND_PLACES; place++) {
		__u64 word = READ_ONCE(*(const __u64 *)&bucket->frontend[place]);

		/* A place is another key's only after a grace period: these two belong together. */
		if (word && word >> 40 == hash >> 8 && key_equal(&bucket->key[place], key))
			return word;
	}
	return READ_ONCE(bucket->overflow) ? overflow_lookup(key, hash) : 0;
}

/* What stands for all ports of the key's address that are no frontends. */
static __noinline __u64 wildcard_lookup(const struct frontend_key *key)
{
	struct frontend_key wildcard = { .address = key->address };

	return frontend_lookup(&wildcard);
}

/* True for an address of a Service range (semantics §7.6). */
static __always_inline bool range_contains(const struct address *address)
{
	__u32 index = 0;
	const struct service_ranges *ranges = bpf_map_lookup_elem(&svc_ranges, &index);
	__u32 active = ranges ? READ_ONCE(ranges->active) : 0;
	__u64 within = 0;

#pragma nounroll
	for (int i = 0; i < SERVICE_RANGES && active >> i; i++)
		within |= active >> i & mask_if_zero(range_difference(&ranges->range[i], address));
	return within & 1;
}

/* Kind of a frontend's u64. */
static __always_inline enum frontend_kind frontend_kind(__u64 frontend)
{
	return frontend >> 32;
}

/* The u64 of what captures a key, 0 if nothing does. */
static __always_inline __u64 frontend_find(const struct frontend_key *key)
{
	__u32 filter = filter_lookup(&key->address);
	__u64 word = filter & FILTER_FRONTEND ? frontend_lookup(key) : 0;

	if (!word && filter & FILTER_WILDCARD) {
		word = wildcard_lookup(key);
		if (frontend_kind(word) >= FRONTEND_VIP) /* which says nothing of its ports */
			word = 0;
	}
	if (!word && range_contains(&key->address))
		word = (__u64)FRONTEND_UNOWNED << 32;
	return word;
}

/*
 * The same, apart from the hot path: for readers that were overtaken by a change. Not static: the
 * verifier follows such a function once, and not again from every state that leads there. It works
 * on a copy, since Linux 6.1 takes no argument of such a function as a map's key.
 */
__noinline __u64 frontend_find_again(const struct frontend_key *key)
{
	struct frontend_key copy;

	if (!key)
		return 0;
	copy = *key;
	return frontend_find(&copy);
}

/* True if a frontend's u64 captures nothing: its address is left alone. */
static __always_inline bool frontend_is_left(__u64 frontend)
{
	return !frontend || frontend_kind(frontend) == FRONTEND_LEAVE;
}

/* The service and the table that a frontend's u64 leads this request to. */
static __always_inline void frontend_follow(__u64 frontend, const struct request *request,
					    struct choice *choice)
{
	choice->service = frontend;
	if (frontend_kind(frontend) == FRONTEND_CLUSTER_IP)
		choice->table = TABLE_INTERNAL;
	else
		choice->table = request_inside(request) ? TABLE_INSIDE : TABLE_OUTSIDE;
}

/* The service that was chosen. As in overflow_lookup(), its key is on the stack. */
static __always_inline struct service *service_lookup(const struct choice *choice)
{
	__u32 id = choice->service;

	return bpf_map_lookup_elem(&svc_services, &id);
}

/* Whether a guarded service may be asked from where the request comes: VERDICT_FORWARD if so. */
static __noinline enum verdict source_check(const struct request *request, struct choice *choice,
					    struct service *service, enum guard guard)
{
	struct source_key key = { .prefix_length = SOURCE_PREFIX + SOURCE_ADDRESS_BITS,
				  .service = choice->service };
	enum source source = request_source(request, &key.address);

	if (source == SOURCE_UNKNOWN) {
		reason_count(REASON_SOURCE_UNKNOWN);
		return VERDICT_NONE;
	}
	if (source == SOURCE_NODE ? guard == GUARD_NODE :
				    bpf_map_lookup_elem(&svc_sources, &key) != NULL)
		return VERDICT_FORWARD;
	/* Ranges go after the guard: a service that was opened meanwhile has none to find. */
	if (READ_ONCE(service->guard) != guard)
		return VERDICT_RETRY;
	choice->reason = REASON_SOURCE_RANGE;
	return VERDICT_DROP;
}

/* Source ranges guard load balancer frontends alone, before all else (semantics §8.1, §8.5). */
static __always_inline enum verdict source_verdict(const struct request *request, __u64 frontend,
						   struct choice *choice)
{
	struct service *service;
	enum guard guard;

	if (frontend_kind(frontend) != FRONTEND_LOAD_BALANCER)
		return VERDICT_FORWARD;
	service = service_lookup(choice);
	if (!service)
		return VERDICT_RETRY;
	guard = READ_ONCE(service->guard);
	return guard == GUARD_OPEN ? VERDICT_FORWARD :
				     source_check(request, choice, service, guard);
}

/*
 * The backend that a stored reference means, or NULL if it is not (or no longer) an endpoint that
 * the choice's table lists. Port, listed and generation are one u64, read at once.
 */
static __always_inline struct backend *backend_lookup(__u64 reference, __u32 generation_mask,
						      const struct choice *choice)
{
	__u32 id = reference, generation = reference >> 32;
	struct backend *backend = bpf_map_lookup_elem(&svc_backends, &id);
	__u64 word;

	if (!backend)
		return NULL;
	word = READ_ONCE(*(const __u64 *)&backend->port);
	if (((__u32)(word >> 32) ^ generation) & generation_mask)
		return NULL;
	if (!(word >> 24 & 0xff & 1 << choice->table))
		return NULL;
	if (READ_ONCE(backend->service) != choice->service)
		return NULL;
	return backend;
}

static __always_inline void choice_set(struct choice *choice, __u32 id,
				       const struct backend *backend)
{
	choice->address = backend->address;
	choice->port = backend->port;
	choice->reference = id | (__u64)backend->generation << 32;
}

/* A backend kept from an earlier choice (a socket's record, an affinity entry), if it still is one.
 */
static __always_inline bool choice_keep(struct choice *choice, __u64 reference)
{
	const struct backend *backend = backend_lookup(reference, ~0U, choice);

	if (!backend)
		return false;
	choice_set(choice, reference, backend);
	return true;
}

/* The slot that a hash falls on, of a service's table word {offset, length}. */
static __always_inline const __u32 *slot_lookup(const struct service *service, __u64 word,
						__u32 hash)
{
	__u32 length = word >> TABLE_LENGTH_SHIFT & ((1U << TABLE_LENGTH_BITS) - 1);
	__u32 index = (__u32)word + (__u32)((__u64)hash * length >> 32);
	__u32 element = index / 2;
	const struct slot_pair *pair;

	if (index >> TABLE_ROW_BIT)
		return &service->slot[index & (TABLE_ROW_SLOTS - 1)];
	pair = bpf_map_lookup_elem(&svc_slots, &element);
	if (!pair)
		return NULL;
	return index & 1 ? &pair->slot[1] : &pair->slot[0];
}

static __always_inline enum verdict
backend_draw(struct service *service, const struct request *request, struct choice *choice)
{
	__u32 table = choice->table;
	struct backend *backend;
	const __u32 *slot;
	__u32 value, id;
	__u64 word;

	barrier_var(table); /* clang 14 drops the bound that the verifier of 6.18 asks for */
	if (table >= TABLE_COUNT)
		return VERDICT_RETRY;
	word = READ_ONCE(service->table[table]);
	if (!(word >> TABLE_LENGTH_SHIFT & ((1U << TABLE_LENGTH_BITS) - 1)))
		return word >> TABLE_ACTION_SHIFT == EMPTY_DROP ? VERDICT_DROP : VERDICT_REFUSE;
	slot = slot_lookup(service, word, request_hash(request));
	if (!slot)
		return VERDICT_RETRY;
	value = READ_ONCE(*slot);
	id = value & ((1U << SLOT_BACKEND_BITS) - 1);
	backend = backend_lookup(id | (__u64)(value >> SLOT_BACKEND_BITS) << 32,
				 (1U << SLOT_GENERATION_BITS) - 1, choice);
	if (!backend)
		return VERDICT_RETRY;
	choice_set(choice, id, backend);
	return VERDICT_FORWARD;
}

/* ClientIP affinity (semantics §11): the last endpoint of this client, while it is eligible. */
static __always_inline enum verdict
backend_affine(struct service *service, const struct request *request, struct choice *choice)
{
	struct affinity_key key = { .service = choice->service };
	struct affinity next = { .last_seen_ns = bpf_ktime_get_ns() };
	struct affinity *last;
	enum verdict verdict;

	request_client(request, &key.client);
	last = bpf_map_lookup_elem(&svc_affinity, &key);
	if (last &&
	    next.last_seen_ns - last->last_seen_ns < service->affinity_seconds * NANOSECONDS) {
		__u64 reference = READ_ONCE(last->reference);
		struct backend *backend = backend_lookup(reference, ~0U, choice);

		if (backend) {
			WRITE_ONCE(last->last_seen_ns, next.last_seen_ns);
			choice_set(choice, reference, backend);
			return VERDICT_FORWARD;
		}
	}
	verdict = backend_draw(service, request, choice);
	if (verdict == VERDICT_FORWARD) {
		next.reference = choice->reference;
		bpf_map_update_elem(&svc_affinity, &key, &next, BPF_ANY);
	}
	return verdict;
}

/* The backend for a request, once frontend_follow() has set service and table. */
static __always_inline enum verdict backend_select(const struct request *request,
						   struct choice *choice)
{
	struct service *service;
	enum verdict verdict;

	if (request->keep && choice_keep(choice, request->keep))
		return VERDICT_FORWARD;
	service = service_lookup(choice);
	if (!service)
		return VERDICT_RETRY;
	verdict = service->affinity_seconds ? backend_affine(service, request, choice) :
					      backend_draw(service, request, choice);
	if (verdict == VERDICT_REFUSE)
		choice->reason = REASON_REFUSED;
	else if (verdict == VERDICT_DROP)
		choice->reason = REASON_DROPPED;
	return verdict;
}

/* Counts a new connection with its endpoint: the hook says when, for it may try in vain. */
static __always_inline void choice_count(const struct choice *choice)
{
	__u32 id = choice->reference;
	struct backend *backend = bpf_map_lookup_elem(&svc_backends, &id);

	if (backend)
		__sync_fetch_and_add(&backend->connections, 1);
}

/* Counts a connection that a verdict of balance() ends, by its reason and with its service. */
static __always_inline void refusal_count(const struct choice *choice)
{
	struct service *service;

	reason_count(choice->reason);
	if (choice->reason != REASON_REFUSED && choice->reason != REASON_DROPPED &&
	    choice->reason != REASON_SOURCE_RANGE)
		return;
	service = service_lookup(choice);
	if (service)
		__sync_fetch_and_add(choice->reason == REASON_REFUSED ? &service->refused :
									&service->dropped,
				     1);
}

/* What becomes of an address that is no service's. False: it is one's. */
static __always_inline bool frontend_refuses(__u64 frontend, enum verdict *verdict,
					     struct choice *choice)
{
	enum frontend_kind kind = frontend_kind(frontend);

	if (kind < FRONTEND_REFUSE)
		return false;
	*verdict = kind == FRONTEND_REFUSE ? VERDICT_REFUSE : VERDICT_DROP;
	choice->reason = kind == FRONTEND_REFUSE ? REASON_UNDEFINED_PORT : REASON_UNOWNED_ADDRESS;
	return true;
}

/*
 * From a frontend, found by the caller with frontend_find(), to a backend; again from the start
 * while entries change under the reader.
 */
static __always_inline enum verdict balance(const struct request *request, __u64 frontend,
					    struct choice *choice)
{
#pragma nounroll
	for (__u32 attempt = 0; attempt < BALANCE_ATTEMPTS; attempt = loop_next(attempt)) {
		enum verdict verdict;

		if (frontend_is_left(frontend))
			return VERDICT_NONE;
		if (frontend_refuses(frontend, &verdict, choice))
			return verdict;
		frontend_follow(frontend, request, choice);
		verdict = source_verdict(request, frontend, choice);
		if (verdict == VERDICT_FORWARD)
			verdict = backend_select(request, choice);
		if (verdict != VERDICT_RETRY)
			return verdict;
		reason_count(REASON_RETRIED);
		frontend = frontend_find_again(&request->key);
	}
	choice->reason = REASON_INCONSISTENT;
	return VERDICT_DROP;
}

#endif
