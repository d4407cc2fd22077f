/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sends UDP packets to port 7 back from XDP to where they came from. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ECHO_PORT 7

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

char LICENSE[] SEC("license") = "GPL";

SEC("xdp")
int reflect(struct xdp_md *ctx)
{
	struct frame *frame = (void *)(long)ctx->data;
	unsigned char mac[ETH_ALEN];
	__be32 address;
	__be16 port;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end ||
	    frame->eth.h_proto != bpf_htons(ETH_P_IP) || frame->ip.ihl != 5 ||
	    frame->ip.protocol != IPPROTO_UDP || frame->udp.dest != bpf_htons(ECHO_PORT))
		return XDP_PASS;
	__builtin_memcpy(mac, frame->eth.h_dest, ETH_ALEN);
	__builtin_memcpy(frame->eth.h_dest, frame->eth.h_source, ETH_ALEN);
	__builtin_memcpy(frame->eth.h_source, mac, ETH_ALEN);
	address = frame->ip.daddr;
	frame->ip.daddr = frame->ip.saddr;
	frame->ip.saddr = address;
	port = frame->udp.dest;
	frame->udp.dest = frame->udp.source;
	frame->udp.source = port;
	return XDP_TX;
}
