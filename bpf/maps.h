/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the kernel knows: every struct, enum and map that programs and agent share, nothing else.
 * bindings/layout.ts is generated from this file's BTF; there is no second description.
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; *port* is network order too.
 * Every byte of a shared struct has a name.
 */
#ifndef BPFSVC_MAPS_H
#define BPFSVC_MAPS_H

#include <stdbool.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Sizes and bit positions that the agent needs as numbers. */
enum limit {
	TABLE_LENGTH_SHIFT = 32, /* a table word: offset | length << 32 | empty_action << 56 */
	TABLE_LENGTH_BITS = 24,
	TABLE_ACTION_SHIFT = 56,
	SLOT_BACKEND_BITS = 22, /* a slot: backend id | (generation & 0x3ff) << 22 */
	SLOT_GENERATION_BITS = 10,
	FRONTEND_BUCKETS = 65536,  /* elements of svc_frontends, a power of two */
	FRONTEND_PLACES = 2,	   /* frontends in one of them */
	FILTER_WORDS = 32768,	   /* elements of svc_filter, a power of two */
	FILTER_POSITIONS = 16,	   /* positions in one of them, four bits each: */
	FILTER_FRONTEND = 1,	   /* some frontend is at an address of this position */
	FILTER_WILDCARD = 2,	   /* some wildcard is */
	FILTER_ENDPOINT = 4,	   /* some endpoint is, or was */
	SERVICE_RANGES = 16,	   /* ranges in svc_ranges */
	SOURCE_PREFIX = 32,	   /* a source_key's bits before the address */
	SOURCE_ADDRESS_BITS = 128, /* and those of the address */
	SOCKET_SETS = 4096,	   /* elements of svc_socket_one, a power of two */
	SOCKET_PLACES = 4,	   /* sockets in one of them */
	SOCKET_RECORDS = 2,	   /* destinations of one socket in svc_sockets */
	SOCKET_RECORDS_MORE = 128, /* further ones, in svc_socket_more */
	NAME_BYTES = 64,	   /* a Kubernetes label is at most 63 bytes long */
};

/*
 * Which address of its Service a frontend is. Only a cluster IP is internal (semantics §3.1). From
 * FRONTEND_REFUSE on they are wildcards: of port 0 and protocol 0, they stand for every port of
 * the address that is no frontend, and belong to no service.
 */
enum frontend_kind {
	FRONTEND_NONE = 0,
	FRONTEND_CLUSTER_IP = 1,
	FRONTEND_EXTERNAL_IP = 2,
	FRONTEND_LOAD_BALANCER = 3,
	FRONTEND_NODE_PORT = 4,
	FRONTEND_REFUSE = 5,  /* an undefined port of a cluster IP (§7.5) */
	FRONTEND_LEAVE = 6,   /* an address of a Service that another proxy serves */
	FRONTEND_UNOWNED = 7, /* in no map: what an address of svc_ranges is that is nobody's */
} __attribute__((packed));

/* Which endpoints a packet may get (semantics §6): a service has one table for each. */
enum table {
	TABLE_INTERNAL = 0, /* to the cluster IP, from anywhere */
	TABLE_INSIDE = 1,   /* to an external frontend, from a pod or the node */
	TABLE_OUTSIDE = 2,  /* to an external frontend, from elsewhere */
	TABLE_COUNT = 3,
	TABLE_NONE = 7, /* of a UDP endpoint that serves, but only sockets that have it (§14.2) */
} __attribute__((packed));

/* What an empty table does to a new connection (semantics §7). */
enum empty_action {
	EMPTY_REFUSE = 0,
	EMPTY_DROP = 1,
} __attribute__((packed));

/* Who may ask a service's load balancer frontends (semantics §8). */
enum guard {
	GUARD_OPEN = 0,
	GUARD_SOURCES = 1, /* sources in svc_sources */
	GUARD_NODE = 2,	   /* those, and this node's own processes */
} __attribute__((packed));

enum backend_state {
	BACKEND_FREE = 0,
	BACKEND_READY = 1,
	BACKEND_TERMINATING = 2, /* serving and terminating, used when nothing is ready (§5.3) */
} __attribute__((packed));

enum service_type {
	TYPE_CLUSTER_IP = 0,
	TYPE_NODE_PORT = 1,
	TYPE_LOAD_BALANCER = 2,
} __attribute__((packed));

/* Why a program did something else than translate, or did it the long way: index of svc_reasons. */
enum reason {
	REASON_REFUSED = 0,	    /* no endpoint anywhere: ECONNREFUSED */
	REASON_DROPPED = 1,	    /* endpoints exist, none may be used from here: EHOSTUNREACH */
	REASON_RETRIED = 2,	    /* an entry changed under the reader, it looked again */
	REASON_INCONSISTENT = 3,    /* still no whole entry after all attempts: EHOSTUNREACH */
	REASON_NO_SOCKET_STORE = 4, /* no memory for socket storage: not translated back */
	REASON_RECORD_REPLACED = 5, /* a socket's oldest record gave way to a new destination */
	REASON_UNDEFINED_PORT = 6,  /* a port that the cluster IP does not have: ECONNREFUSED */
	REASON_UNOWNED_ADDRESS = 7, /* of a Service range, but nobody's: EHOSTUNREACH */
	REASON_SOURCE_RANGE = 8,    /* a source that the Service does not allow: EHOSTUNREACH */
	REASON_SOURCE_UNKNOWN = 9,  /* a guarded VIP, asked by we do not know whom: left alone */
	REASON_COUNT = 10,
} __attribute__((packed));

struct address {
	__be32 word[4];
};

/* What is captured: an address, port and protocol. */
struct frontend_key {
	struct address address;
	__be16 port;   /* 0 in a wildcard */
	__u8 protocol; /* IPPROTO_TCP, _UDP or _SCTP; 0 in a wildcard */
	__u8 reserved;
};

/* Where it leads. One aligned u64, so it changes as one; 0 is no frontend. */
struct frontend {
	__u32 service;
	enum frontend_kind kind;
	__u8 check[3]; /* bits 8..31 of the key's frontend_hash(), low byte first */
};

/*
 * svc_frontends: a hash table in an array, which needs no call to look up and none to write. The
 * key's hash gives the bucket, one cache line. A place is free while its frontend is 0, and given
 * to another key only after a grace period. Frontends that find no place are in svc_overflow.
 */
struct frontend_bucket {
	struct frontend frontend[FRONTEND_PLACES];
	struct frontend_key key[FRONTEND_PLACES];
	__u32 overflow; /* frontends of this bucket in svc_overflow */
	__u32 reserved;
};

/*
 * svc_services: one row a service port and family, indexed by service id. The agent changes a
 * table by storing its word; refused and dropped are the programs' own.
 */
struct service {
	__u64 table[TABLE_COUNT]; /* see enum limit; a length of 0 is an empty table */
	__u32 affinity_seconds;	  /* ClientIP affinity, 0 for none (semantics §11) */
	enum guard guard;
	__u8 reserved[3];
	__u64 refused;	/* connections answered by EMPTY_REFUSE */
	__u64 dropped;	/* connections answered by EMPTY_DROP, or of a source not allowed */
	__u64 departed; /* connections of endpoints that have left: added up by the agent */
	__u64 reserved_2;
};

/* svc_slots: the tables' storage. A table is length slots from offset on, counted in slots. */
struct slot_pair {
	__u32 slot[2];
};

/*
 * svc_backends: one endpoint of one service port, indexed by backend id. Port to generation are
 * one aligned u64, stored last and read first: an id is in use while listed is not 0, and what
 * a reader then finds in the row stays until that reader is done (docs/ARCHITECTURE.md).
 */
struct backend {
	struct address address;
	__be16 port;
	enum backend_state state;
	__u8 listed;	  /* bit 1 << enum table for each table that holds it, or for TABLE_NONE */
	__u32 generation; /* counts the uses of this id; part of every stored reference */
	__u32 service;
	__u32 reserved;
	__u64 connections;
	__u64 reserved_2[3]; /* one cache line a row */
};

/*
 * svc_sources: where the load balancer frontends of a guarded service may be asked from. A key
 * says all; what it leads to is 1.
 */
struct source_key {
	__u32 prefix_length; /* SOURCE_PREFIX + the bits that count of the address */
	__u32 service;
	struct address address;
};

/*
 * svc_ranges, of one element: Service ranges (ServiceCIDRs). Bit i of active says that range[i] is
 * in force, nothing else does; what it says changes only while the bit is 0, and a grace period
 * after it was 1.
 */
struct service_range {
	struct address address;
	struct address mask;
};

struct service_ranges {
	__u32 active;
	__u32 reserved;
	struct service_range range[SERVICE_RANGES];
};

/* svc_clients: what the agent knows of a network namespace, by its cookie. */
struct client {
	__u64 cookie;	     /* the key again: an element can be recycled under a reader */
	struct address ipv4; /* the address that it connects from; zeros if not known */
	struct address ipv6;
	__u8 inside; /* 1: a pod, as far as semantics §6.3 goes */
	__u8 reserved[7];
};

/* svc_affinity: the endpoint a client got last (semantics §11). */
struct affinity_key {
	struct address client; /* its address, or its network namespace's cookie in word 0 and 1 */
	__u32 service;
	__u32 reserved;
};

struct affinity {
	__u64 reference; /* backend id | generation << 32 */
	__u64 last_seen_ns;
};

/*
 * What one socket remembers of one destination: which endpoint it got, to stay with it, and which
 * Service address it asked, to show that as the source of replies and as the peer.
 */
struct record {
	struct address frontend_address;
	struct address backend_address;
	__be16 frontend_port;
	__be16 backend_port;
	__u32 used;	 /* the socket's clock at the last use: the latest of two records wins */
	__u64 reference; /* backend id | generation << 32; 0: left the endpoint, replies only */
};

/*
 * svc_socket_one: the record of sockets that have one destination, at a place of the set that the
 * socket's cookie leads to. A place is free while its cookie is 0; it is written before the cookie
 * and does not change until the socket is closed or moves to svc_sockets, for good. A socket that
 * finds no place free goes there at once.
 */
struct socket_set {
	__u64 cookie[SOCKET_PLACES];
	struct record record[SOCKET_PLACES];
	__u64 reserved[4];
};

/* svc_sockets and svc_socket_more: socket storage, gone with the socket, never evicted. */
struct socket_records {
	struct bpf_spin_lock lock;
	__u32 count; /* records in use, from the first on */
	__u32 clock; /* advances with every use */
	__u32 reserved;
	struct record record[SOCKET_RECORDS];
};

struct socket_records_more {
	struct bpf_spin_lock lock;
	__u32 count;
	__u32 next; /* the record to replace when all are in use */
	__u32 reserved;
	struct record record[SOCKET_RECORDS_MORE];
};
/* With the kernel's own 100 bytes or so: what Linux 7 allocates without locks. */
_Static_assert(sizeof(struct socket_records_more) <= 8192 - 256, "too large for a socket");

/* svc_names: what people call a service id. Written after the rows that programs read. */
struct service_name {
	__u8 namespace[NAME_BYTES]; /* padded with zeros */
	__u8 name[NAME_BYTES];
	__u8 port[NAME_BYTES]; /* the service port's name, empty if it has none */
	__u8 protocol;
	__u8 family; /* 4 or 6 */
	enum service_type type;
	__u8 reserved[5];
};

/* svc_meta: one element, about the agent that writes these maps. */
struct meta {
	__u64 layout;	/* hash of the layouts of all maps of this folder; always the first field */
	__u64 programs; /* hash of the attached programs and their configuration */
	__u64 sequence; /* odd while the agent is writing */
	__u8 node[256]; /* the node's name, padded with zeros */
};

/*
 * svc_filter: what is read before anything else. An address's hash gives its position; where no bit
 * is set there, no port of the address is in svc_frontends or svc_overflow.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FILTER_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} svc_filter SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FRONTEND_BUCKETS);
	__type(key, __u32);
	__type(value, struct frontend_bucket);
} svc_frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} svc_overflow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct service);
} svc_services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2097152);
	__type(key, __u32);
	__type(value, struct slot_pair);
} svc_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct backend);
} svc_backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct source_key);
	__type(value, __u32);
} svc_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct service_ranges);
} svc_ranges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct client);
} svc_clients SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} svc_affinity SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKET_SETS);
	__type(key, __u32);
	__type(value, struct socket_set);
} svc_socket_one SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_records);
} svc_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_records_more);
} svc_socket_more SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct service_name);
} svc_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} svc_reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct meta);
} svc_meta SEC(".maps");

#endif
