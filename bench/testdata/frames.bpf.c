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

#define HEADER_WORDS 8 /* 64 bytes, the shortest frame: what lies behind them is never touched */

const volatile __u64 header[HEADER_WORDS];
const volatile __u32 flow_mask;	      /* a power of two of flows, minus one */
const volatile __u32 source_word;     /* where the client's address ends: the last 4 bytes of it */
const volatile __u32 port_offset;     /* and where its port is */
const volatile __u32 checksum_offset; /* where the IPv4 header's checksum is; 0: there is none */
const volatile __u32 device;	      /* where redirected frames leave */

__u32 turn;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tested SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counted SEC(".maps");

/* The flow of this run: all of them in turn, no two neighbours after each other. */
static __always_inline __u32 flow_next(void)
{
	return turn++ * 0x9e3779b1 >> 4 & flow_mask;
}

/* The client's address plus a number: the stack, unlike a balancer, looks at the checksum. */
static __always_inline void source_add(void *data, __u32 number)
{
	__be32 *source = data + source_word;
	__be16 *checksum = data + checksum_offset;
	__u32 sum;

	*source = bpf_htonl(bpf_ntohl(*source) + number);
	if (!checksum_offset)
		return;
	sum = (__u16)~bpf_ntohs(*checksum) + number;
	*checksum = bpf_htons(~(sum + (sum >> 16)));
}

/* Writes the whole header, and the client of a flow: 32,768 ports of each of some addresses. */
static __always_inline int frame_write(void *data, void *end, __u32 flow)
{
	__u64 *word = data;

	if (data + HEADER_WORDS * sizeof(*word) > end)
		return -1;
#pragma unroll
	for (int i = 0; i < HEADER_WORDS; i++)
		word[i] = header[i];
	if (source_word > 60 || port_offset > 60 || checksum_offset > 60)
		return -1;
	source_add(data, flow >> 15);
	*(__be16 *)(data + port_offset) = bpf_htons(1024 + (flow & 0x7fff));
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

static __always_inline void count(void)
{
	__u32 index = 0;
	__u64 *value = bpf_map_lookup_elem(&counted, &index);

	/* One CPU does all the work of a measurement. */
	if (value)
		(*value)++;
}

SEC("xdp.frags")
int svc_sink(struct xdp_md *ctx)
{
	count();
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
