/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames for measurements: each run begins with a frame that is whole again, of one of a number of
 * flows in turn, whatever the last run has made of it. The kernel itself resets nothing: without
 * this the second run of a program gets what the first one sent. It then goes on to what is to be
 * measured, or out of a device, and at the other end frames are counted.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MOST_WORDS 10			  /* of 8 bytes: all headers of a packet of IPv6 and TCP */
#define LAST_WORD  (header_words * 8 - 4) /* where the last 4 bytes of them begin */

const volatile __u64 header[MOST_WORDS];
const volatile __u32 header_words = 8; /* as many as are written: what lies behind stays */
const volatile __u32 flow_mask;	       /* a power of two of flows, minus one */
const volatile __u32 services = 1;     /* that flows are spread over: addresses in a row */
const volatile __u32 source_word;      /* where the client's address ends: the last 4 bytes of it */
const volatile __u32 destination_word; /* and that of the Service */
const volatile __u32 port_offset;      /* and where its port is */
const volatile __u32 network_checksum; /* where that of the IPv4 header is; 0: there is none */
const volatile __u32 transport_checksum; /* where that of TCP or UDP is; 0: there is none */
const volatile __u32 device;		 /* where redirected frames leave */

__u32 turn;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tested SEC(".maps"), tested_tc SEC(".maps");

/* How many frames came to "sink", and whether it sends them back: two words. */
enum sink_word {
	SINK_COUNT,
	SINK_REFLECTS,
	SINK_WORDS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SINK_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} sink SEC(".maps");

/* The flow of this run: each once before any comes again, no two neighbours after each other. */
static __always_inline __u32 flow_next(void)
{
	return turn++ * 0x9e3779b1 & flow_mask;
}

/* What a checksum becomes when words of its sum have grown by a number (RFC 1624). */
static __always_inline void checksum_add(void *data, __u32 offset, __u32 number)
{
	__be16 *checksum = data + offset;
	__u32 sum;

	if (!offset || offset > LAST_WORD)
		return;
	sum = (__u16)~bpf_ntohs(*checksum) + number;
	sum = (__u16)sum + (sum >> 16);
	*checksum = bpf_htons(~(sum + (sum >> 16)));
}

static __always_inline void word_add(void *data, __u32 offset, __u32 number)
{
	__be32 *word = data + offset;

	if (offset <= LAST_WORD)
		*word = bpf_htonl(bpf_ntohl(*word) + number);
}

/*
 * Writes the whole header, the client of a flow, 32,768 ports of each of some addresses, and its
 * Service. What looks at checksums, as the stack does, finds them right.
 */
static __always_inline int frame_write(void *data, void *end, __u32 flow)
{
	__u32 address = flow >> 15, port = flow & 0x7fff;
	__u32 service = (__u64)(flow * 0x85ebca6b) * services >> 32;
	__u64 *word = data;

	if (header_words > MOST_WORDS || data + header_words * sizeof(*word) > end)
		return -1;
#pragma unroll
	for (__u32 i = 0; i < MOST_WORDS; i++)
		if (i < header_words)
			word[i] = header[i];
	if (!(flow_mask | (services - 1)))
		return 0;
	if (port_offset > LAST_WORD)
		return -1;
	word_add(data, source_word, address);
	word_add(data, destination_word, service);
	*(__be16 *)(data + port_offset) =
		bpf_htons(bpf_ntohs(*(__be16 *)(data + port_offset)) + port);
	checksum_add(data, network_checksum, address + service);
	checksum_add(data, transport_checksum, address + service + port);
	return 0;
}

SEC("xdp.frags")
int svc_frame(struct xdp_md *ctx)
{
	if (frame_write((void *)(long)ctx->data, (void *)(long)ctx->data_end, flow_next()))
		return XDP_ABORTED;
	bpf_tail_call(ctx, &tested, 0);
	return XDP_ABORTED;
}

SEC("tc")
int svc_frame_tc(struct __sk_buff *ctx)
{
	if (frame_write((void *)(long)ctx->data, (void *)(long)ctx->data_end, flow_next()))
		return TC_ACT_SHOT;
	bpf_tail_call(ctx, &tested_tc, 0);
	return TC_ACT_SHOT;
}

/* The floor of everything in TC: a program that leaves packets to the next one. */
SEC("tc")
int svc_next(struct __sk_buff *ctx)
{
	return TC_ACT_UNSPEC;
}

/* The floor of everything: a program that only sends back. */
SEC("xdp.frags")
int svc_tx(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* What a balancer cannot do without: parse Ethernet, IPv4 and TCP, and swap the MAC addresses. */
SEC("xdp.frags")
int svc_parse_tx(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct tcphdr *tcp;
	__u8 address[ETH_ALEN];

	if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	tcp = (void *)ip + ip->ihl * 4;
	if (ip->ihl < 5 || ip->protocol != IPPROTO_TCP || (void *)(tcp + 1) > end || !tcp->dest)
		return XDP_PASS;
	__builtin_memcpy(address, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, address, ETH_ALEN);
	return XDP_TX;
}

SEC("xdp.frags")
int svc_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Sends frames: run live, so that each leaves by a device. */
SEC("xdp.frags")
int svc_generate(struct xdp_md *ctx)
{
	if (frame_write((void *)(long)ctx->data, (void *)(long)ctx->data_end, flow_next()))
		return XDP_ABORTED;
	return bpf_redirect(device, 0);
}

/* Sends on what arrives, untouched: the floor of forwarding. */
SEC("xdp.frags")
int svc_forward(struct xdp_md *ctx)
{
	return bpf_redirect(device, 0);
}

static __always_inline __u64 *sink_word(__u32 word)
{
	return bpf_map_lookup_elem(&sink, &word);
}

/* Who sent it gets it back: addresses and ports change sides, which no checksum notices. */
static __always_inline int reflect(void *data, void *end)
{
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);
	__be16 *ports = (void *)(ip + 1), port;
	__u8 address[ETH_ALEN];
	__be32 source;

	if ((void *)(ports + 2) > end)
		return XDP_ABORTED;
	__builtin_memcpy(address, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, address, ETH_ALEN);
	source = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = source;
	port = ports[0];
	ports[0] = ports[1];
	ports[1] = port;
	return XDP_TX;
}

/* One CPU does all the work of a measurement: nothing is counted twice at a time. */
SEC("xdp.frags")
int svc_sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 *count = sink_word(SINK_COUNT), *reflects = sink_word(SINK_REFLECTS);
	struct ethhdr *ethernet = data;

	if (!count || !reflects || (void *)(ethernet + 1) > end ||
	    ethernet->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	(*count)++;
	return *reflects ? reflect(data, end) : XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
