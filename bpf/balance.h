/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From an address to a frontend to a backend. Sees no packet and no socket, so every hook decides
 * alike. A reader may meet entries that the agent is changing: each step proves that what it read
 * belongs to the step before, and balance() starts again if it does not.
 */
#ifndef BPFSVC_BALANCE_H
#define BPFSVC_BALANCE_H

#include "maps.h"

#define BALANCE_ATTEMPTS 4
#define NANOSECONDS	 1000000000ULL

#define READ_ONCE(x)	     (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

enum verdict {
	VERDICT_NONE, /* not a Service's address: leave it alone */
	VERDICT_FORWARD,
	VERDICT_REFUSE,
	VERDICT_DROP,
	/* An entry changed under the reader, who starts again; never returned by balance(). */
	VERDICT_RETRY,
	VERDICT_MISSED, /* likewise, but if it stays so there is no such frontend */
};

/* What a hook asks, and what it knows of the asker. */
struct request {
	struct frontend_key key;
	__u32 key_hash; /* frontend_hash() of the key */
	bool inside;	/* from a pod or from the node */
	__u64 keep; /* reference to the endpoint that this asker had before and stays with, or 0 */
	void *context; /* for the two questions below */
};

/* What a hook answers only when asked, because it costs: a hash that spreads new connections... */
static __always_inline __u32 request_hash(const struct request *request);
/* ...and who the client is, for ClientIP affinity. */
static __always_inline void request_client(const struct request *request, struct address *client);

/* What balance() found. Valid for VERDICT_FORWARD, service and table also for the refusals. */
struct choice {
	struct address address;
	__u64 reference; /* backend id | generation << 32 */
	__u32 service;
	__be16 port;
	enum table table;
};

static __always_inline void reason_count(enum reason reason)
{
	__u32 index = reason;
	__u64 *counter = bpf_map_lookup_elem(&svc_reasons, &index);

	if (counter)
		(*counter)++;
}

/* A hash of a frontend's key, for svc_filter and for the value's check. The agent has the same. */
static __always_inline __u32 frontend_hash(const struct frontend_key *key)
{
	const __u32 *word = (const __u32 *)key;
	__u32 hash = word[0] * 0x9e3779b1 + word[1] * 0x85ebca77 + word[2] * 0xc2b2ae3d +
		     word[3] * 0x27d4eb2f + word[4] * 0x165667b1;

	hash ^= hash >> 15;
	hash *= 0x2c1b3c6d;
	return hash ^ hash >> 12;
}

/* False: this is certainly no frontend. Costs no call. */
static __always_inline bool filter_matches(__u32 key_hash)
{
	__u32 bit = key_hash & ((1U << FILTER_BITS) - 1), index = bit / 64;
	const struct filter_word *word = bpf_map_lookup_elem(&svc_filter, &index);

	return word && READ_ONCE(word->bits) >> (bit % 64) & 1;
}

static __always_inline bool address_equal(const struct address *a, const struct address *b)
{
	return a->word[3] == b->word[3] && a->word[2] == b->word[2] && a->word[1] == b->word[1] &&
	       a->word[0] == b->word[0];
}

/* Counts the agent's writes; odd while it writes. */
static __always_inline __u64 sequence_read(void)
{
	__u32 index = 0;
	const struct meta *meta = bpf_map_lookup_elem(&svc_meta, &index);

	return meta ? READ_ONCE(meta->sequence) : 0;
}

/*
 * The service and table of an address. VERDICT_FORWARD means found. The value is one u64, read at
 * once: {service, kind, check}. An element that is being replaced can be missed, since the kernel
 * inserts the new one ahead and then unlinks the old one: a miss counts if nothing was written.
 */
static __always_inline enum verdict frontend_lookup(const struct request *request,
						    struct choice *choice)
{
	__u64 sequence = sequence_read();
	const __u64 *value = bpf_map_lookup_elem(&svc_frontends, &request->key);
	__u64 word;
	__u8 kind;

	if (!value)
		return sequence & 1 || sequence_read() != sequence ? VERDICT_MISSED : VERDICT_NONE;
	word = READ_ONCE(*value);
	if (word >> 40 != request->key_hash >> 8)
		return VERDICT_RETRY;
	kind = word >> 32;
	choice->service = word;
	if (kind == FRONTEND_CLUSTER_IP)
		choice->table = TABLE_INTERNAL;
	else
		choice->table = request->inside ? TABLE_INSIDE : TABLE_OUTSIDE;
	return VERDICT_FORWARD;
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

/* The slot that a hash falls on, of a table word {offset, length}. */
static __always_inline const __u32 *slot_lookup(__u64 word, __u32 hash)
{
	__u32 length = word >> TABLE_LENGTH_SHIFT & ((1U << TABLE_LENGTH_BITS) - 1);
	__u32 index = (__u32)word + (__u32)((__u64)hash * length >> 32);
	__u32 element = index / 2;
	const struct slot_pair *pair = bpf_map_lookup_elem(&svc_slots, &element);

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
	slot = slot_lookup(word, request_hash(request));
	if (!slot)
		return VERDICT_RETRY;
	value = READ_ONCE(*slot);
	id = value & ((1U << SLOT_BACKEND_BITS) - 1);
	backend = backend_lookup(id | (__u64)(value >> SLOT_BACKEND_BITS) << 32,
				 (1U << SLOT_GENERATION_BITS) - 1, choice);
	if (!backend)
		return VERDICT_RETRY;
	choice_set(choice, id, backend);
	__sync_fetch_and_add(&backend->connections, 1);
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
			__sync_fetch_and_add(&backend->connections, 1);
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

/* The backend for a request, once frontend_lookup() has found the service. */
static __always_inline enum verdict backend_select(const struct request *request,
						   struct choice *choice)
{
	struct service *service;
	enum verdict verdict;

	if (request->keep && choice_keep(choice, request->keep))
		return VERDICT_FORWARD;
	service = bpf_map_lookup_elem(&svc_services, &choice->service);
	if (!service)
		return VERDICT_RETRY;
	verdict = service->affinity_seconds ? backend_affine(service, request, choice) :
					      backend_draw(service, request, choice);
	if (verdict == VERDICT_REFUSE)
		__sync_fetch_and_add(&service->refused, 1);
	else if (verdict == VERDICT_DROP)
		__sync_fetch_and_add(&service->dropped, 1);
	return verdict;
}

/*
 * The whole way, from address to backend, again from the start while entries change under it. The
 * caller has asked filter_matches() first.
 */
static __always_inline enum verdict balance(const struct request *request, struct choice *choice)
{
	enum verdict verdict = VERDICT_NONE;

	for (int attempt = 0; attempt < BALANCE_ATTEMPTS; attempt++) {
		verdict = frontend_lookup(request, choice);
		if (verdict == VERDICT_FORWARD)
			verdict = backend_select(request, choice);
		if (verdict != VERDICT_RETRY && verdict != VERDICT_MISSED)
			return verdict;
		if (verdict == VERDICT_RETRY)
			reason_count(REASON_RETRIED);
	}
	if (verdict == VERDICT_MISSED)
		return VERDICT_NONE;
	reason_count(REASON_INCONSISTENT);
	return VERDICT_DROP;
}

#endif
