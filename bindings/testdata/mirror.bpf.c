/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fills structs of maps.h as C sees them, one every 512 bytes, for TypeScript to read: a wrong
 * layout cannot hide behind a reader and a writer that share the error.
 */
#include "maps.h"
#include <bpf/bpf_endian.h>

#define PLACE_BYTES 512

static __always_inline void fill_address(struct address *address)
{
	address->word[0] = bpf_htonl(0x20010db8);
	address->word[3] = bpf_htonl(0x0a0b0c0d);
}

SEC("syscall")
int fill(void *ctx)
{
	struct frontend_key *key = ctx;
	struct frontend *frontend = ctx + PLACE_BYTES;
	struct backend *backend = ctx + 2 * PLACE_BYTES;
	struct service *service = ctx + 3 * PLACE_BYTES;

	fill_address(&key->address);
	key->port = bpf_htons(8443);
	key->protocol = 17;

	frontend->service = 70000;
	frontend->kind = FRONTEND_NODE_PORT;
	frontend->check[0] = 1;
	frontend->check[2] = 3;

	fill_address(&backend->address);
	backend->port = bpf_htons(53);
	backend->state = BACKEND_TERMINATING;
	backend->listed = 5;
	backend->service = 70000;
	backend->local = 1;
	backend->hop = 3;
	backend->generation = 9;
	backend->connections = 1ULL << 40;

	service->table[TABLE_INTERNAL] = 3ULL << TABLE_LENGTH_SHIFT;
	service->table[TABLE_OUTSIDE] = 0x8000000000000001;
	service->affinity_seconds = 10800;
	service->external_local = 1;
	service->refused = 1;
	service->dropped = 2;
	service->departed = 3;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
