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
	TABLE_ROW_BIT = 31,	/* of an offset: the table lies in its service's own row, */
	TABLE_ROW_SLOTS = 16,	/* among so many slots, a power of two; id * 16 comes before them */
	SLOT_BACKEND_BITS = 22, /* a slot: backend id | (generation & 0x3ff) << 22 */
	SLOT_GENERATION_BITS = 10,
	FRONTEND_BUCKETS = 65536, /* elements of svc_frontends, a power of two */
	FRONTEND_PLACES = 2,	  /* frontends in one of them */
	FILTER_WORDS = 32768,	  /* elements of svc_filter, a power of two */
	FILTER_POSITIONS = 16,	  /* positions in one of them, four bits each: */
	FILTER_FRONTEND = 1,	  /* some frontend is at an address of this position */
	FILTER_WILDCARD = 2,	  /* some wildcard is */
	FILTER_ENDPOINT = 4,	  /* some endpoint is, or was */
	FILTER_NODE = 8,     /* some address of this node is: replies to it may be for a client */
	SERVICE_RANGES = 16, /* ranges in svc_ranges */
	SOURCE_PREFIX = 32,  /* a source_key's bits before the address */
	SOURCE_ADDRESS_BITS = 128, /* and those of the address */
	SOCKET_SETS = 4096,	   /* elements of svc_socket_one, a power of two */
	SOCKET_PLACES = 4,	   /* sockets in one of them */
	SOCKET_RECORDS = 2,	   /* destinations of one socket in svc_sockets */
	SOCKET_RECORDS_MORE = 128, /* further ones, in svc_socket_more */
	NAME_BYTES = 64,	   /* a Kubernetes label is at most 63 bytes long */
	FLOW_KIND_SHIFT = 1,	   /* a flow's lock: bit 0 says that it is being written, */
	FLOW_PROTOCOL_SHIFT = 3,
	FLOW_PATH_SHIFT = 5,
	FLOW_SOURCE_SHIFT = 7,	  /* an index in svc_node, of 6 bits; 0: the client's own address */
	FLOW_SEQUENCE_SHIFT = 13, /* counts the uses of the place, */
	FLOW_STATE_SHIFT = 24,	  /* and all but the state says whose it is */
	FLOW_WAYS = 4,		  /* flows in an element of svc_flows */
	FLOW_CLOCK_SHIFT =
		30, /* of CLOCK_MONOTONIC in ns: the unit of flow.last_used, and of these: */
	FLOW_IDLE_TCP = 15 * 3600,    /* a connection without packets for longer is over */
	FLOW_IDLE_HALF_CLOSED = 3600, /* and one of TCP or SCTP that one side has closed */
	FLOW_IDLE_UDP = 180,
	FLOW_IDLE_UNREPLIED = 60,
	FLOW_IDLE_CLOSED = 10,
	FLOW_CLOCK_AHEAD = 256, /* last_used may be later than a reader's "now" by so much */
	FLOW_GROUP = 16,	/* elements in a page: both that a flow may be in are in one */
	HOP_BITS = 10,		/* a flow's hop: index in svc_hops | generation << 10 */
	NODE_SOURCES = 64,	/* addresses of this node in svc_node; the first is not used */
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
	FRONTEND_VIP = 8,  /* a load balancer's address: ports are left alone (§7.7), pings not */
	FRONTEND_HOST = 9, /* an external IP, maybe of a host: only pings that turn back are not */
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
	REASON_NO_ROUTE = 10, /* no way to the endpoint, or no address to send from: dropped */
	REASON_PORTS_EXHAUSTED = 11, /* no free port for a rewritten source: refused */
	REASON_FLOW_LOST = 12,	     /* other CPUs took the flow's place each time: dropped */
	REASON_FLOW_EVICTED = 13, /* a connection in use gave way to a new one, svc_flows is full */
	REASON_NO_CONNECTION = 14,  /* ends a connection that nobody knows: dropped */
	REASON_FRAGMENT_LOST = 15,  /* a fragment that overtook the first, or of SCTP: dropped */
	REASON_TOO_BIG = 16,	    /* larger than the way to the endpoint takes: sender told */
	REASON_TTL_EXCEEDED = 17,   /* it has passed too many routers: sender told */
	REASON_ANSWER_LIMIT = 18,   /* an answer of our own not sent, there were too many */
	REASON_TUNNEL_REFUSED = 19, /* a tunnel found no way, or nobody to open it: sender told */
	REASON_FLOW_HELD = 20, /* connections were moving to a table of another size: dropped */
	REASON_COUNT = 21,
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
 * table by storing its word, or slots that lie here; refused and dropped are the programs' own.
 */
struct service {
	__u64 table[TABLE_COUNT]; /* see enum limit; a length of 0 is an empty table */
	__u32 affinity_seconds;	  /* ClientIP affinity, 0 for none (semantics §11) */
	enum guard guard;
	__u8 external_local; /* 1: externalTrafficPolicy Local, as far as sources go (§10.2) */
	__u8 reserved[2];
	__u32 slot[TABLE_ROW_SLOTS]; /* of tables that fit in here */
	__u64 refused;		     /* connections answered by EMPTY_REFUSE */
	__u64 dropped;	/* connections answered by EMPTY_DROP, or of a source not allowed */
	__u64 departed; /* connections of endpoints that have left: added up by the agent */
	__u64 reserved_2;
};

/* svc_slots: storage of larger tables. A table is length slots from offset on, counted in slots. */
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
	__u8 local; /* 1: on this node, so that replies come by and its client need not change */
	__u8 reserved;
	__u16 hop; /* the programs' own: the way there, as in struct flow, */
	__u64 connections;
	__u16 hop_used;	      /* and when it was taken last, see flow_now() */
	__u16 reserved_2[11]; /* one cache line a row */
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
	__u8 inside_ipv4; /* 1: a pod for what it asks over IPv4 (semantics §6.3, §6.4) */
	__u8 inside_ipv6;
	__u8 reserved[6];
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

/* The protocols of flows, in a flow's lock. */
enum flow_protocol {
	FLOW_TCP = 0,
	FLOW_UDP = 1,
	FLOW_SCTP = 2,
	FLOW_NO_PROTOCOL = 3,
} __attribute__((packed));

/* Which packets of a connection a flow is met by. */
enum flow_kind {
	FLOW_FREE = 0,
	FLOW_FORWARD = 1, /* client to frontend */
	FLOW_REVERSE = 2, /* backend to source */
} __attribute__((packed));

/* Where packets of a flow are translated: in both directions through the stack, or in neither. */
enum flow_path {
	FLOW_STACK = 0,	   /* requests at ingress, replies at egress: the stack sees the endpoint */
	FLOW_REDIRECT = 1, /* both at ingress, and sent on from there: the stack sees neither */
	FLOW_NODE = 2,	   /* requests at egress, replies at ingress: of a process of this node */
	FLOW_TUNNEL = 3,   /* requests sent on in a tunnel, replies go their own way (DSR) */
} __attribute__((packed));

/* What has been seen of a flow: bits of the last byte of its lock. */
enum flow_state {
	FLOW_REPLIED = 1,     /* answered; over TCP and SCTP the client has gone on since */
	FLOW_CLOSED = 2,      /* this direction was closed (FIN, SHUTDOWN) */
	FLOW_PEER_CLOSED = 4, /* the other one was */
	FLOW_RESET = 8,	      /* the connection was reset or aborted */
	FLOW_ANSWERED = 16,   /* over TCP and SCTP: the endpoint has sent something */
};

/*
 * svc_flows: a connection that passes through the node, in one cache line. Each has two, one found
 * by what the client sends, one by what the endpoint does, with the same content but for the kind.
 * flow.h says how they are written and read.
 */
struct flow {
	__u32 lock;	 /* see enum limit */
	__u16 last_used; /* see FLOW_CLOCK_SHIFT: a little more than seconds */
	__u16 hop;	 /* where packets of this direction go: see enum limit; 0: not known */
	__be16 client_port;
	__be16 frontend_port;
	__be16 backend_port;
	__be16 source_port; /* what the endpoint sees as the client's */
	struct address client;
	struct address frontend;
	struct address backend;
} __attribute__((aligned(8)));

struct flow_set {
	struct flow way[FLOW_WAYS];
};

/* svc_hops: next hops that flows lead to, a cache of what the kernel's routes and neighbours say.
 */
struct hop {
	__u32 ifindex;	   /* the device to send to; 0: free */
	__u16 generation;  /* odd while the row changes; a flow refers to one generation */
	__u8 sends_frames; /* 1: XDP can send to the device */
	__u8 source;	   /* this node's address towards it, an index in svc_node; 0: not known */
	struct address next;
	__u8 header[14]; /* of Ethernet */
	__u16 mtu;	 /* bytes of a packet without it */
	__u32 checked;	 /* when the kernel was asked last, see flow_now() */
	__u32 reserved[5];
};

/* Why a device is not served as its like usually is: for people, programs do not ask. */
enum device_note {
	NOTE_NONE = 0,
	NOTE_ASKED = 1,	      /* the operator wants it so */
	NOTE_VETH = 2,	      /* frames sent from XDP may vanish at its other end: no XDP */
	NOTE_NO_ETHERNET = 3, /* packets without an Ethernet header: no XDP */
	NOTE_FOREIGN = 4,     /* another XDP program is attached */
	NOTE_REFUSED = 5,     /* the driver refused XDP, see error */
	NOTE_NOT_LOADED = 6,  /* the kernel refused the XDP program, see error */
	NOTE_NO_TC = 7,	      /* the TC programs could not be attached: not served at all */
} __attribute__((packed));

/* svc_devices: what the agent knows of a device, by its ifindex. */
struct device {
	__u8 mac[6];
	__u8 sends_frames; /* 1: XDP can send to it */
	__u8 is_uplink;	   /* 1: what is addressed to another MAC is not for us */
	__u8 is_pod;	   /* 1: pods are behind it, by the detector's modes for devices (§10.8) */
	__u8 is_inside;	   /* 1: answers to whoever is behind it pass through this node */
	__u8 source_ipv4;  /* this node's address on it, an index in svc_node; 0: none */
	__u8 source_ipv6;
	enum device_note note;
	__u8 reserved;
	__u16 error; /* errno of what the note is about, 0 if there is none */
};

/* svc_node, of one element: what programs need to know of this node, kept by the agent. */
struct node {
	struct address source[NODE_SOURCES]; /* this node's addresses, the same while one is used */
	struct service_range pods[2];	     /* where pods are, of IPv4 and IPv6 (§10.8) */
	__u32 hash_key[10]; /* of the flows' hash, random, the same as long as svc_flows lives */
	__u16 nat_first;    /* ports that rewritten sources may get */
	__u16 nat_count;
	__u16 host_first; /* those that the host takes for itself (ip_local_port_range) */
	__u16 host_last;
	__u16 node_port_first; /* all frontends on this node's own addresses lie between these */
	__u16 node_port_last;
	__u8 detects_ipv4; /* 1: pods can be told from others (§6.4) */
	__u8 detects_ipv6;
	__u8 detects_devices; /* 1: by struct device, not by range */
	__u8 reserved;
	__u64 held_until; /* no connection begins before, in ns of CLOCK_MONOTONIC: all move */
};

/* svc_fragments: the ports of a datagram of which the first fragment has passed. */
struct fragment_key {
	struct address source;
	struct address destination;
	__be32 id;
	__u8 protocol;
	__u8 reserved[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
};

/* svc_answers: how many packets of our own the programs may still send on one CPU. */
struct answers {
	__u64 refilled_ns;
	__u64 left;
};

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
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* also for its alignment: a flow is one cache line */
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct flow_set);
} svc_flows SEC(".maps");

/* A bit for each hash of address and port that answers at egress; what has none is passed on. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} svc_answering SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << HOP_BITS);
	__type(key, __u32);
	__type(value, struct hop);
} svc_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct device);
} svc_devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct node);
} svc_node SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} svc_fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answers);
} svc_answers SEC(".maps");

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
