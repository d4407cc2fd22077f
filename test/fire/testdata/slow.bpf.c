/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The same lookups, that dawdle: map lookups of the unchanged bpf/balance.h wait before they
 * return, so that what is changed meanwhile is changed between two steps of a reader.
 */
#include "maps.h"

#define MOST_TURNS (1 << 22)

/* After which of them. */
enum place {
	PLACE_ANY = 0,
	PLACE_SERVICES = 1,
	PLACE_NONE = 2, /* only where twin.h asks for it */
};

const volatile __u32 pause_after = PLACE_ANY;
/* The longest pause; they differ. */
const volatile __u32 pause_ns = 0;
/* One of so many is not left out. */
const volatile __u32 pause_every = 1;

static long turn(__u32 index, const __u64 *until)
{
	return bpf_ktime_get_ns() >= *until;
}

static __noinline int pause(void)
{
	__u64 until;

	if (pause_every > 1 && bpf_get_prandom_u32() % pause_every)
		return 0;
	until = bpf_ktime_get_ns() + ((__u64)bpf_get_prandom_u32() * pause_ns >> 32);
	bpf_loop(MOST_TURNS, turn, &until, 0);
	return 0;
}

static __always_inline void *lookup_slowly(void *map, const void *key)
{
	void *value = bpf_map_lookup_elem(map, key);

	if (pause_after == PLACE_ANY || (pause_after == PLACE_SERVICES && map == &svc_services))
		pause();
	return value;
}

#define bpf_map_lookup_elem(map, key) lookup_slowly(map, key)
#include "balance.h"
#undef bpf_map_lookup_elem

#include "twin.h"
