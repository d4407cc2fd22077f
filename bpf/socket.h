/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What one socket remembers of the Services it talks to: to stay with an endpoint (UDP), and to
 * show the Service's address on the way back. Records lie in socket storage, the first few small,
 * the rest only for sockets that need them. Knows nothing of selection.
 */
#ifndef BPFSVC_SOCKET_H
#define BPFSVC_SOCKET_H

#include <bpf/bpf_core_read.h>
#include "balance.h"

/*
 * Whether the kernel has bpf_rdonly_cast() (Linux 6.2): then a socket's cookie is read where it
 * lies. The helper is two calls, which on some processors cost more than all else together.
 */
const volatile bool reads_sockets = false;

extern void *bpf_rdonly_cast(const void *object, __u32 type) __ksym __weak;

struct sock_common___cookie {
	struct {
		__s64 counter;
	} skc_cookie;
} __attribute__((preserve_access_index));

/* Whom a reply seems to come from, who really sent it, and when this socket last asked there. */
struct reply {
	struct address address;
	__u64 reference;
	__u32 used;
	__be16 port;
};

/* 0 if the record is of this frontend. */
static __always_inline __u32 frontend_difference(const struct record *record,
						 const struct frontend_key *key)
{
	return address_difference(&record->frontend_address, &key->address) |
	       (record->frontend_port ^ key->port);
}

/* 0 if the record is of this endpoint. */
static __always_inline __u32 backend_difference(const struct record *record,
						const struct address *address, __be16 port)
{
	return address_difference(&record->backend_address, address) |
	       (record->backend_port ^ port);
}

static __always_inline void record_set(struct record *record, const struct frontend_key *key,
				       const struct choice *choice, __u32 clock)
{
	record->frontend_address = key->address;
	record->frontend_port = key->port;
	record->backend_address = choice->address;
	record->backend_port = choice->port;
	record->used = clock;
	WRITE_ONCE(record->reference, choice->reference);
}

/* 32 ones if a socket's clock showed one time after another, else none. */
static __always_inline __u64 mask_if_after(__u32 time, __u32 before)
{
	__u64 mask = (__u64)((before - time) >> 31) * 0xffffffff;

	barrier_var(mask);
	return mask;
}

/*
 * Where a frontend's records are: the one in force, and that of the endpoint it left. Of 64 bits,
 * or Linux 6.1 would not see that a check of the low half bounds all of it.
 */
struct place {
	__u64 current;
	__u64 left;
};

/* Both are max where there is none. */
static __always_inline struct place records_find(const struct record *record, __u32 count,
						 __u32 max, const struct frontend_key *key)
{
	struct place place = { max, max };

	for (__u64 i = 0; i < max && i < count; i++) {
		__u64 reference = READ_ONCE(record[i].reference);
		__u64 same = mask_if_zero(frontend_difference(&record[i], key));
		__u64 left = mask_if_zero(reference | reference >> 32);

		place.current ^= (place.current ^ i) & same & ~left;
		place.left ^= (place.left ^ i) & same & left;
	}
	return place;
}

/*
 * The reference in force for a frontend, 0 if none. Needs no lock: a record half written by
 * another thread yields a reference that backend_lookup() proves or rejects.
 */
static __always_inline __u64 records_recall(struct record *record, __u32 count, __u32 max,
					    const struct frontend_key *key, __u32 clock)
{
	__u64 current = records_find(record, count, max, key).current;

	if (current >= max)
		return 0;
	record[current].used = clock;
	return READ_ONCE(record[current].reference);
}

/*
 * Under the lock: the choice becomes the frontend's record; an endpoint that was left keeps one,
 * for replies. A choice without a reference is for replies only. False if there is no room.
 */
static __always_inline bool records_store(struct record *record, __u32 *count, __u32 max,
					  const struct frontend_key *key,
					  const struct choice *choice, __u32 clock)
{
	struct place place = records_find(record, *count, max, key);
	/* Read anew: of the first one the verifier knows too much after the loop. */
	__u64 end = READ_ONCE(*count);
	__u64 current = choice->reference ? place.current : place.left;

	if (current >= max) {
		if (end >= max)
			return false;
		current = end;
		*count = end + 1;
	} else if (record[current].reference != choice->reference) {
		/* What was in force stays for replies, in the place of what was left before. */
		__u64 left = place.left < max ? place.left : end;

		if (left < max) {
			record[left] = record[current];
			WRITE_ONCE(record[left].reference, 0);
			if (left == end)
				*count = end + 1;
		}
	}
	record_set(&record[current], key, choice, clock);
	return true;
}

/*
 * Under the lock: the frontend that a reply's sender stands for, of several the one used last, if
 * that was after reply->used.
 */
static __always_inline bool records_reply(const struct record *record, __u32 count, __u32 max,
					  const struct address *address, __be16 port,
					  struct reply *reply)
{
	__u64 latest = reply->used, found = max;

	for (__u64 i = 0; i < max && i < count; i++) {
		__u32 used = record[i].used;
		__u64 mask = mask_if_zero(backend_difference(&record[i], address, port)) &
			     mask_if_after(used, latest);

		latest ^= (latest ^ used) & mask;
		found ^= (found ^ i) & mask;
	}
	if (found >= max)
		return false;
	reply->address = record[found].frontend_address;
	reply->port = record[found].frontend_port;
	reply->used = record[found].used;
	reply->reference = record[found].reference;
	return true;
}

/* A socket's cookie by the helper, if it can be had no cheaper. */
#define SOCKET_COOKIE(context, sk)                                                                 \
	(reads_sockets && (sk) ? cookie_read(sk) : bpf_get_socket_cookie(context))

/* 0 if nobody has asked for the cookie yet: then the socket remembers nothing. */
static __always_inline __u64 cookie_read(const struct bpf_sock *sk)
{
	__u32 type = bpf_core_type_id_kernel(struct sock_common___cookie);
	const struct sock_common___cookie *common = bpf_rdonly_cast(sk, type);

	return common->skc_cookie.counter;
}

/* NULL without a cookie, which is what a free place has. */
static __always_inline struct socket_set *socket_set_lookup(__u64 cookie)
{
	__u32 index = cookie % SOCKET_SETS;

	if (!cookie)
		return NULL;
	return bpf_map_lookup_elem(&svc_socket_one, &index);
}

/* The reference that a socket's place keeps for a frontend, 0 if none. */
static __always_inline __u64 place_recall(struct socket_set *set, __u64 cookie,
					  const struct frontend_key *key)
{
#pragma unroll
	for (__u32 place = 0; place < SOCKET_PLACES; place++) {
		__u64 reference;

		if (READ_ONCE(set->cookie[place]) != cookie ||
		    frontend_difference(&set->record[place], key))
			continue;
		reference = READ_ONCE(set->record[place].reference);
		/* Nobody else has got the place meanwhile. */
		if (READ_ONCE(set->cookie[place]) == cookie)
			return reference;
	}
	return 0;
}

static __always_inline bool place_has(const struct socket_set *set, __u64 cookie)
{
	bool has = false;

#pragma unroll
	for (__u32 place = 0; place < SOCKET_PLACES; place++)
		has |= READ_ONCE(set->cookie[place]) == cookie;
	return has;
}

/* The Service that a socket's place says an endpoint answers for. */
static __always_inline bool place_reply(const struct socket_set *set, __u64 cookie,
					const struct address *address, __be16 port,
					struct reply *reply)
{
#pragma unroll
	for (__u32 place = 0; place < SOCKET_PLACES; place++) {
		if (READ_ONCE(set->cookie[place]) != cookie ||
		    backend_difference(&set->record[place], address, port))
			continue;
		reply->address = set->record[place].frontend_address;
		reply->port = set->record[place].frontend_port;
		reply->reference = set->record[place].reference;
		if (READ_ONCE(set->cookie[place]) == cookie)
			return true;
	}
	return false;
}

/* Takes a free place for a socket's first record. False if there is none. */
static __always_inline bool place_store(struct socket_set *set, __u64 cookie,
					const struct frontend_key *key, const struct choice *choice)
{
#pragma unroll
	for (__u32 place = 0; place < SOCKET_PLACES; place++) {
		if (READ_ONCE(set->cookie[place]) ||
		    __sync_val_compare_and_swap(&set->cookie[place], 0, ~0ULL))
			continue;
		record_set(&set->record[place], key, choice, 0);
		__sync_lock_test_and_set(&set->cookie[place], cookie);
		return true;
	}
	return false;
}

/* Gives up the places of a socket that is closed, or whose records are in its storage now. */
static __always_inline void place_free(__u64 cookie)
{
	struct socket_set *set = socket_set_lookup(cookie);

	if (!set)
		return;
#pragma unroll
	for (__u32 place = 0; place < SOCKET_PLACES; place++)
		if (READ_ONCE(set->cookie[place]) == cookie)
			WRITE_ONCE(set->cookie[place], 0);
}

/*
 * What a socket keeps in its storage for a frontend. Not static, as the functions below: see
 * frontend_find_again().
 */
__noinline __u64 storage_recall(struct bpf_sock_addr *ctx, const struct frontend_key *key)
{
	struct socket_records *few = bpf_sk_storage_get(&svc_sockets, ctx->sk, NULL, 0);
	struct socket_records_more *more;
	__u64 reference;

	if (!few || !key)
		return 0;
	few->clock++;
	reference = records_recall(few->record, few->count, SOCKET_RECORDS, key, few->clock);
	if (reference || few->count < SOCKET_RECORDS)
		return reference;
	more = bpf_sk_storage_get(&svc_socket_more, ctx->sk, NULL, 0);
	if (!more)
		return 0;
	return records_recall(more->record, more->count, SOCKET_RECORDS_MORE, key, few->clock);
}

/* The endpoint reference that this socket keeps for a frontend, 0 if none. */
static __always_inline __u64 socket_recall(struct bpf_sock_addr *ctx,
					   const struct frontend_key *key)
{
	__u64 cookie = SOCKET_COOKIE(ctx, ctx->sk), reference;
	struct socket_set *set = socket_set_lookup(cookie);

	if (!set)
		return 0;
	reference = place_recall(set, cookie, key);
	if (reference || !bpf_sk_storage_get(&svc_sockets, ctx->sk, NULL, 0))
		return reference;
	return storage_recall(ctx, key);
}

/* The socket has SOCKET_RECORDS destinations already: remember one more, or instead of another. */
__noinline int storage_remember_more(struct bpf_sock_addr *ctx, const struct frontend_key *key,
				     const struct choice *choice, __u32 clock)
{
	struct socket_records_more *more;
	bool stored;

	if (!key || !choice)
		return 0;
	more = bpf_sk_storage_get(&svc_socket_more, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!more) {
		reason_count(REASON_NO_SOCKET_STORE);
		return 0;
	}
	bpf_spin_lock(&more->lock);
	stored = records_store(more->record, &more->count, SOCKET_RECORDS_MORE, key, choice, clock);
	if (!stored)
		record_set(&more->record[more->next++ % SOCKET_RECORDS_MORE], key, choice, clock);
	bpf_spin_unlock(&more->lock);
	if (!stored)
		reason_count(REASON_RECORD_REPLACED);
	return 0;
}

/* Moves what a socket's places hold to its storage. */
static __always_inline void place_move(struct socket_set *set, __u64 cookie,
				       struct socket_records *few)
{
#pragma unroll
	for (__u32 place = 0; place < SOCKET_PLACES; place++) {
		__u32 count;

		if (READ_ONCE(set->cookie[place]) != cookie)
			continue;
		bpf_spin_lock(&few->lock);
		count = few->count;
		if (READ_ONCE(set->cookie[place]) == cookie && count < SOCKET_RECORDS) {
			few->record[count] = set->record[place];
			few->count = count + 1;
		}
		bpf_spin_unlock(&few->lock);
		WRITE_ONCE(set->cookie[place], 0);
	}
}

/* Remembers what this socket got for a frontend, until the socket is closed. */
__noinline int socket_remember(struct bpf_sock_addr *ctx, const struct frontend_key *key,
			       const struct choice *choice)
{
	struct socket_records *few = bpf_sk_storage_get(&svc_sockets, ctx->sk, NULL, 0);
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct socket_set *set = socket_set_lookup(cookie);
	__u32 clock;
	bool stored;

	if (!set || !key || !choice)
		return 0;
	if (!few && !place_has(set, cookie) && place_store(set, cookie, key, choice))
		return 0;
	few = bpf_sk_storage_get(&svc_sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!few) {
		reason_count(REASON_NO_SOCKET_STORE);
		return 0;
	}
	place_move(set, cookie, few);
	bpf_spin_lock(&few->lock);
	clock = ++few->clock;
	stored = records_store(few->record, &few->count, SOCKET_RECORDS, key, choice, clock);
	bpf_spin_unlock(&few->lock);
	if (!stored)
		storage_remember_more(ctx, key, choice, clock);
	return 0;
}

/* The Service that a socket's storage says an endpoint answers for. */
static __always_inline bool storage_reply(struct bpf_sock *sk, const struct address *address,
					  __be16 port, struct reply *reply)
{
	struct socket_records *few = bpf_sk_storage_get(&svc_sockets, sk, NULL, 0);
	struct socket_records_more *more;
	bool found;

	if (!few)
		return false;
	bpf_spin_lock(&few->lock);
	reply->used = few->clock - 0x7fffffff; /* before all that are in use */
	found = records_reply(few->record, few->count, SOCKET_RECORDS, address, port, reply);
	bpf_spin_unlock(&few->lock);
	if (few->count < SOCKET_RECORDS)
		return found;
	more = bpf_sk_storage_get(&svc_socket_more, sk, NULL, 0);
	if (!more)
		return found;
	bpf_spin_lock(&more->lock);
	found |=
		records_reply(more->record, more->count, SOCKET_RECORDS_MORE, address, port, reply);
	bpf_spin_unlock(&more->lock);
	return found;
}

/* The same, verified once. */
__noinline int storage_answer(struct bpf_sock_addr *ctx, const struct address *address, __be16 port,
			      struct reply *reply)
{
	return address && reply && storage_reply(ctx->sk, address, port, reply);
}

/* The Service address that an endpoint answers for on this socket. False: it is no Service's. */
static __always_inline bool socket_reply(struct bpf_sock_addr *ctx, const struct address *address,
					 __be16 port, struct reply *reply)
{
	__u64 cookie = SOCKET_COOKIE(ctx, ctx->sk);
	struct socket_set *set = socket_set_lookup(cookie);

	if (!set)
		return false;
	if (place_reply(set, cookie, address, port, reply))
		return true;
	return bpf_sk_storage_get(&svc_sockets, ctx->sk, NULL, 0) &&
	       storage_answer(ctx, address, port, reply);
}

/*
 * The socket addresses an endpoint itself. If a Service has led it there before, replies from now
 * on are the endpoint's own, until the Service is asked again.
 */
__noinline int socket_direct(struct bpf_sock_addr *ctx, const struct frontend_key *key)
{
	struct choice choice = {};
	struct reply reply = {};

	if (!key || !socket_reply(ctx, &key->address, key->port, &reply))
		return 0;
	choice.address = key->address;
	choice.port = key->port;
	if (address_difference(&reply.address, &key->address) | (reply.port ^ key->port))
		socket_remember(ctx, key, &choice);
	return 0;
}

#endif
