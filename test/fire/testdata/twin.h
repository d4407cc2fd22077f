/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Asks bpf/balance.h for endpoints, as the socket programs do, and judges each answer by what its
 * address says: which owner's endpoint it is and since when it is listed. oracle.ts writes what
 * may be answered. A program of the TC kind, because a test run of it holds the RCU read lock that
 * cgroup programs hold, and membarrier() waits for; one of the syscall kind does not hold it.
 */
#ifndef BPFSVC_TWIN_H
#define BPFSVC_TWIN_H

#include <bpf/bpf_endian.h>
#include "balance.h"

#define FIRST_PORT 1024
#define PORT_COUNT 60000
#define CLIENTS	   16

/* What is left out, to see that the oracle notices. */
enum without {
	WITHOUT_NOTHING = 0,
	WITHOUT_FRONTEND_CHECK = 1, /* a frontend's word does not have to name its key */
	WITHOUT_BACKEND_CHECK = 2,  /* a kept reference counts as long as its row is listed */
};

/* A frontend that is asked for. */
struct target {
	struct frontend_key key;
	__u32 external; /* 1: its table is TABLE_INSIDE */
	__u64 expected; /* owner | previous owner << 16 | number of changes << 32; owner 0: none */
};

/* Which endpoints of an owner may be answered, by the time from which they are listed. */
struct span {
	__u32 lowest;
	__u32 highest;
};

/* What one reader has seen; oracle.ts names them in this order. */
enum count {
	COUNT_LOOKUPS,
	COUNT_FORWARDED,
	COUNT_ABSENT,
	COUNT_KEPT,
	COUNT_PASSED_OVER,  /* the target changed too often meanwhile to be judged */
	COUNT_INCONSISTENT, /* no whole entry after all attempts: the connection fails */
	COUNT_STRANGERS,    /* another owner's endpoint */
	COUNT_WITHDRAWN,    /* an endpoint that was withdrawn before the lookup began */
	COUNT_TORN,	    /* an address and port that no row ever had together */
	COUNT_UNTRANSLATED, /* no frontend, though there is one throughout */
	COUNT_REFUSED,	    /* no endpoint, though there is one throughout */
	COUNT_STRAYED,	    /* a kept reference that leads to another endpoint than before */
	COUNT_TARGET,	    /* the last violation: target, expectations before, after, address */
	COUNT_BEFORE,
	COUNT_AFTER,
	COUNT_HIGH,
	COUNT_LOW,
	COUNT_COUNT = 24,
};

struct stats {
	__u64 value[COUNT_COUNT];
};

/* What a socket would remember of a frontend. */
struct kept {
	__u64 reference;
	struct address address;
};

struct trial {
	const struct target *target;
	struct stats *stats;
	struct span spans[2]; /* of the owner and of the previous one, before the lookup */
	__u64 before;
	__u64 after;
	__u32 index;
};

const volatile __u32 reader = 0;
const volatile __u32 target_count = 1;
const volatile __u32 without = WITHOUT_NOTHING;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct target);
} fire_targets SEC(".maps");

/* Two of each owner, for the tables internal and inside. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct span);
} fire_spans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct stats);
} fire_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct kept);
} fire_kept SEC(".maps");

static __always_inline void span_read(__u16 owner, __u32 external, struct span *span)
{
	__u32 index = owner * 2 + (external & 1);
	const struct span *found = bpf_map_lookup_elem(&fire_spans, &index);

	if (found) {
		span->lowest = READ_ONCE(found->lowest);
		span->highest = READ_ONCE(found->highest);
	}
}

static __always_inline void violation(struct trial *trial, enum count kind,
				      const struct choice *choice)
{
	__u64 *value = trial->stats->value;

	value[kind]++;
	value[COUNT_TARGET] = trial->index;
	value[COUNT_BEFORE] = trial->before;
	value[COUNT_AFTER] = trial->after;
	value[COUNT_HIGH] = bpf_be64_to_cpu(*(const __u64 *)&choice->address.word[0]);
	value[COUNT_LOW] = bpf_be64_to_cpu(*(const __u64 *)&choice->address.word[2]);
}

/* fd00:OWNER:SINCE:SINCE:~SINCE:~SINCE:OWNER:1, and a port made of both. */
static __always_inline bool answer_is_whole(const struct choice *choice, __u32 owner, __u32 since)
{
	const struct address *address = &choice->address;

	return bpf_ntohl(address->word[0]) >> 16 == 0xfd00 &&
	       bpf_ntohl(address->word[2]) == ~since &&
	       bpf_ntohl(address->word[3]) == (owner << 16 | 1) &&
	       bpf_ntohs(choice->port) == FIRST_PORT + (owner * 31 + since) % PORT_COUNT;
}

static __always_inline void judge_endpoint(struct trial *trial, const struct choice *choice)
{
	__u16 owner = bpf_ntohl(choice->address.word[0]);
	__u32 since = bpf_ntohl(choice->address.word[1]);
	__u16 now = trial->before, previous = trial->before >> 16;
	__u16 next = trial->after, leaving = trial->after >> 16;
	struct span span = {};

	span_read(owner, trial->target->external, &span);
	if (!answer_is_whole(choice, owner, since) || since > span.highest)
		violation(trial, COUNT_TORN, choice);
	else if (owner == now && since < trial->spans[0].lowest)
		violation(trial, COUNT_WITHDRAWN, choice);
	else if (owner == previous && since < trial->spans[1].lowest)
		violation(trial, COUNT_WITHDRAWN, choice);
	else if (owner != now && owner != previous && owner != next && owner != leaving)
		violation(trial, COUNT_STRANGERS, choice);
}

/* Up to three steps between two looks at a target, all its owners meanwhile are among the four. */
static __always_inline void judge(struct trial *trial, enum verdict verdict,
				  const struct choice *choice)
{
	__u16 now = trial->before, previous = trial->before >> 16;
	__u16 next = trial->after, leaving = trial->after >> 16;
	bool may_be_absent = !now || !previous || !next || !leaving;
	__u64 *value = trial->stats->value;

	value[COUNT_LOOKUPS]++;
	if ((trial->after >> 32) - (trial->before >> 32) > 3) {
		value[COUNT_PASSED_OVER]++;
	} else if (verdict == VERDICT_FORWARD) {
		value[COUNT_FORWARDED]++;
		judge_endpoint(trial, choice);
	} else if (verdict == VERDICT_DROP) {
		value[COUNT_INCONSISTENT]++;
	} else if (verdict == VERDICT_REFUSE) {
		violation(trial, COUNT_REFUSED, choice);
	} else {
		value[COUNT_ABSENT]++;
		if (!may_be_absent)
			violation(trial, COUNT_UNTRANSLATED, choice);
	}
}

/* frontend_find() as it would be if a place's word did not have to name its key. */
static __always_inline __u64 frontend_find_unchecked(const struct frontend_key *key)
{
	__u32 index = frontend_hash(key) % FRONTEND_BUCKETS;
	const struct frontend_bucket *bucket = bpf_map_lookup_elem(&svc_frontends, &index);
	const __u64 *value;

	if (!bucket)
		return 0;
#pragma unroll
	for (int place = 0; place < FRONTEND_PLACES; place++) {
		__u64 word = READ_ONCE(*(const __u64 *)&bucket->frontend[place]);

		if (!word)
			continue;
		pause();
		if (key_equal(&bucket->key[place], key))
			return word;
	}
	value = bpf_map_lookup_elem(&svc_overflow, key);
	if (!value)
		return 0;
	pause();
	return READ_ONCE(*value);
}

/* choice_keep() as it would be if a listed row were enough. */
static __always_inline bool choice_keep_unchecked(struct choice *choice, __u64 reference)
{
	__u32 id = reference;
	const struct backend *backend = bpf_map_lookup_elem(&svc_backends, &id);

	if (!backend || !READ_ONCE(backend->listed))
		return false;
	choice_set(choice, id, backend);
	return true;
}

static __always_inline __u32 request_hash(const struct request *request)
{
	pause(); /* a table's word has been read, and its slot has not */
	return bpf_get_prandom_u32();
}

static __always_inline void request_client(const struct request *request, struct address *client)
{
	*client = (struct address){ .word[3] = bpf_get_prandom_u32() & (CLIENTS - 1) };
}

static __always_inline bool request_inside(const struct request *request)
{
	return true;
}

static __always_inline enum source request_source(const struct request *request,
						  struct address *address)
{
	return SOURCE_UNKNOWN;
}

/* One connect or send, as translate() in sock.bpf.c does it. */
static __always_inline enum verdict ask(const struct request *request, struct choice *choice)
{
	__u64 frontend = without == WITHOUT_FRONTEND_CHECK ?
				 frontend_find_unchecked(&request->key) :
				 frontend_find(&request->key);

	if (frontend && request->keep && without == WITHOUT_BACKEND_CHECK &&
	    choice_keep_unchecked(choice, request->keep))
		return VERDICT_FORWARD;
	return balance(request, frontend, choice);
}

static __always_inline bool is_same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

/* What a socket would remember: the endpoint that it got, and whether it still is the same. */
static __always_inline void keep(struct kept *kept, const struct choice *choice,
				 struct trial *trial)
{
	if (kept->reference != choice->reference) {
		kept->reference = choice->reference;
		kept->address = choice->address;
		return;
	}
	trial->stats->value[COUNT_KEPT]++;
	if (!is_same(&choice->address, &kept->address))
		violation(trial, COUNT_STRAYED, choice);
}

/* Every other lookup is one of a socket that has asked before. */
SEC("tc")
int look(struct __sk_buff *ctx)
{
	__u32 random = bpf_get_prandom_u32(), row = reader;
	struct trial trial = { .index = random % target_count };
	struct request request = {};
	bool has_asked = random >> 31;
	struct choice choice = {};
	enum verdict verdict;
	struct kept *kept;

	trial.stats = bpf_map_lookup_elem(&fire_stats, &row);
	trial.target = bpf_map_lookup_elem(&fire_targets, &trial.index);
	kept = bpf_map_lookup_elem(&fire_kept, &trial.index);
	if (!trial.stats || !trial.target || !kept)
		return 1;
	request.key = trial.target->key;
	if (has_asked)
		request.keep = kept->reference;
	trial.before = READ_ONCE(trial.target->expected);
	span_read(trial.before, trial.target->external, &trial.spans[0]);
	span_read(trial.before >> 16, trial.target->external, &trial.spans[1]);
	verdict = ask(&request, &choice);
	trial.after = READ_ONCE(trial.target->expected);
	if (verdict == VERDICT_FORWARD && has_asked)
		keep(kept, &choice, &trial);
	judge(&trial, verdict, &choice);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#endif
