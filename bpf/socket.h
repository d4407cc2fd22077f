/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What one socket remembers of the Services it talks to: to stay with an endpoint (UDP), and to
 * show the Service's address on the way back. Records lie in socket storage, the first few small,
 * the rest only for sockets that need them. Knows nothing of selection.
 */
#ifndef BPFSVC_SOCKET_H
#define BPFSVC_SOCKET_H

#include "balance.h"

/* Whom a reply seems to come from, and when this socket last asked there. */
struct reply {
	struct address address;
	__u32 used;
	__be16 port;
};

static __always_inline bool record_is_frontend(const struct record *record,
					       const struct frontend_key *key)
{
	return record->frontend_port == key->port &&
	       address_equal(&record->frontend_address, &key->address);
}

static __always_inline bool record_is_backend(const struct record *record,
					      const struct address *address, __be16 port)
{
	return record->backend_port == port && address_equal(&record->backend_address, address);
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

/*
 * The reference in force for a frontend, 0 if none. Needs no lock: a record half written by
 * another thread yields a reference that backend_lookup() proves or rejects.
 */
static __always_inline __u64 records_recall(struct record *record, __u32 count, __u32 max,
					    const struct frontend_key *key, __u32 clock)
{
	for (__u32 i = 0; i < max && i < count; i++) {
		__u64 reference = READ_ONCE(record[i].reference);

		if (reference && record_is_frontend(&record[i], key)) {
			record[i].used = clock;
			return reference;
		}
	}
	return 0;
}

/*
 * Under the lock: puts the index of a frontend's record into *found, count if there is none.
 * left chooses the record kept for late replies of an endpoint that was left. The index goes
 * through memory because the verifier would otherwise follow every one of its values.
 */
static __always_inline void records_find(const struct record *record, __u32 count, __u32 max,
					 const struct frontend_key *key, bool left, __u32 *found)
{
	*found = count;
	for (__u32 i = 0; i < max && i < count; i++)
		if (!record[i].reference == left && record_is_frontend(&record[i], key)) {
			*found = i;
			break;
		}
}

/*
 * Under the lock: the choice becomes the frontend's record; an endpoint that was left keeps one,
 * for replies. False if there is no room for a new frontend.
 */
static __always_inline bool records_store(struct record *record, __u32 *count, __u32 *found,
					  __u32 max, const struct frontend_key *key,
					  const struct choice *choice, __u32 clock)
{
	__u32 used = *count, current, left;

	records_find(record, used, max, key, false, found);
	current = READ_ONCE(*found);
	if (current >= max)
		return false;
	if (current < used && record[current].reference != choice->reference) {
		records_find(record, used, max, key, true, found);
		left = READ_ONCE(*found);
		if (left < max) {
			record[left] = record[current];
			WRITE_ONCE(record[left].reference, 0);
			*count = left < used ? used : used + 1;
		}
	}
	record_set(&record[current], key, choice, clock);
	if (current == used)
		*count = used + 1;
	return true;
}

/*
 * Under the lock: the frontend that a reply's sender stands for, and when it was used; of several
 * the one used last.
 */
static __always_inline bool records_reply(const struct record *record, __u32 count, __u32 *found,
					  __u32 max, const struct address *address, __be16 port,
					  struct reply *reply)
{
	__u32 best;

	*found = max;
	for (__u32 i = 0; i < max && i < count; i++) {
		if (!record_is_backend(&record[i], address, port))
			continue;
		best = READ_ONCE(*found);
		if (best >= max || (__s32)(record[i].used - record[best].used) > 0)
			*found = i;
	}
	best = READ_ONCE(*found);
	if (best >= max)
		return false;
	reply->address = record[best].frontend_address;
	reply->port = record[best].frontend_port;
	reply->used = record[best].used;
	return true;
}

/* The endpoint reference that this socket keeps for a frontend, 0 if none. */
static __always_inline __u64 socket_recall(struct bpf_sock *sk, const struct frontend_key *key)
{
	struct socket_records *few = bpf_sk_storage_get(&svc_sockets, sk, NULL, 0);
	struct socket_records_more *more;
	__u64 reference;

	if (!few)
		return 0;
	few->clock++;
	reference = records_recall(few->record, few->count, SOCKET_RECORDS, key, few->clock);
	if (reference || few->count < SOCKET_RECORDS)
		return reference;
	more = bpf_sk_storage_get(&svc_sockets_more, sk, NULL, 0);
	if (!more)
		return 0;
	return records_recall(more->record, more->count, SOCKET_RECORDS_MORE, key, few->clock);
}

/* The socket has SOCKET_RECORDS destinations already: remember one more, or instead of another. */
static __noinline void socket_remember_more(struct bpf_sock *sk, const struct frontend_key *key,
					    const struct choice *choice, __u32 clock)
{
	struct socket_records_more *more;
	bool stored;

	more = bpf_sk_storage_get(&svc_sockets_more, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!more) {
		reason_count(REASON_NO_SOCKET_STORE);
		return;
	}
	bpf_spin_lock(&more->lock);
	stored = records_store(more->record, &more->count, &more->found, SOCKET_RECORDS_MORE, key,
			       choice, clock);
	if (!stored)
		record_set(&more->record[more->next++ % SOCKET_RECORDS_MORE], key, choice, clock);
	bpf_spin_unlock(&more->lock);
	if (!stored)
		reason_count(REASON_RECORD_REPLACED);
}

/* Remembers what this socket got for a frontend, until the socket is closed. */
static __noinline void socket_remember(struct bpf_sock *sk, const struct frontend_key *key,
				       const struct choice *choice)
{
	struct socket_records *few;
	__u32 clock;
	bool stored;

	few = bpf_sk_storage_get(&svc_sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!few) {
		reason_count(REASON_NO_SOCKET_STORE);
		return;
	}
	bpf_spin_lock(&few->lock);
	clock = ++few->clock;
	stored = records_store(few->record, &few->count, &few->found, SOCKET_RECORDS, key, choice,
			       clock);
	bpf_spin_unlock(&few->lock);
	if (!stored)
		socket_remember_more(sk, key, choice, clock);
}

/* The Service address that an endpoint answers for on this socket. False: it is no Service's. */
static __always_inline bool socket_reply(struct bpf_sock *sk, const struct address *address,
					 __be16 port, struct reply *reply)
{
	struct socket_records *few = bpf_sk_storage_get(&svc_sockets, sk, NULL, 0);
	struct socket_records_more *more;
	struct reply other;
	bool found, found_more;

	if (!few)
		return false;
	bpf_spin_lock(&few->lock);
	found = records_reply(few->record, few->count, &few->found, SOCKET_RECORDS, address, port,
			      reply);
	bpf_spin_unlock(&few->lock);
	if (few->count < SOCKET_RECORDS)
		return found;
	more = bpf_sk_storage_get(&svc_sockets_more, sk, NULL, 0);
	if (!more)
		return found;
	bpf_spin_lock(&more->lock);
	found_more = records_reply(more->record, more->count, &more->found, SOCKET_RECORDS_MORE,
				   address, port, &other);
	bpf_spin_unlock(&more->lock);
	if (found_more && (!found || (__s32)(other.used - reply->used) > 0))
		*reply = other;
	return found || found_more;
}

#endif
