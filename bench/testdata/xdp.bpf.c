/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The program of bpf/xdp.bpf.c for BPF_PROG_TEST_RUN, which does not put a frame right between its
 * runs: each of these writes the headers anew, with another client where many are wanted.
 */
#include "../../bpf/xdp.bpf.c"

#define HEADER_BYTES 74 /* Ethernet, IPv6, and 20 of the transport header */

/* The headers of the frame, and how many clients send it: their ports and addresses vary. */
const volatile __u8 header[80] = {};
const volatile __u32 clients = 1;

__u64 runs = 0;

static __always_inline int frame_restore(struct xdp_md *ctx)
{
	__u64 *word = (void *)(long)ctx->data;
	const volatile __u64 *from = (const volatile __u64 *)header;

	if ((void *)word + 80 > (void *)(long)ctx->data_end)
		return -1;
#pragma unroll
	for (int i = 0; i < 10; i++)
		word[i] = from[i];
	return 0;
}

static __always_inline int frame_vary(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u32 client;

	if (clients == 1)
		return 0;
	client = (__u32)(runs++ * 0x9e3779b1) % clients;
	if (data + 80 > (void *)(long)ctx->data_end)
		return -1;
	if (*(__be16 *)(data + 12) == bpf_htons(ETH_P_IP)) {
		__u16 *check = data + 24;
		__u64 sum = sum_difference(*(__u32 *)(data + 26),
					   bpf_htonl(0xcb710000 + (client >> 14)));

		*(__u32 *)(data + 26) = bpf_htonl(0xcb710000 + (client >> 14));
		*check = checksum_after(*check, sum);
		*(__be16 *)(data + 34) = bpf_htons(2000 + (client & 0x3fff));
	} else {
		*(__u32 *)(data + 34) = bpf_htonl(client >> 14);
		*(__be16 *)(data + 54) = bpf_htons(2000 + (client & 0x3fff));
	}
	return 0;
}

SEC("xdp")
int bench_xdp(struct xdp_md *ctx)
{
	if (frame_restore(ctx) || frame_vary(ctx))
		return XDP_ABORTED;
	return translate(ctx);
}

/* What is measured against: headers parsed, MAC addresses swapped, sent. */
SEC("xdp")
int bench_bare(struct xdp_md *ctx)
{
	struct packet packet = { .network = sizeof(struct ethhdr) };
	void *data, *end;
	bool ipv6;
	__u16 *mac;

	if (frame_restore(ctx) || frame_vary(ctx))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	mac = data;
	if (data + sizeof(struct ethhdr) > end)
		return XDP_PASS;
	ipv6 = ((struct ethhdr *)data)->h_proto == bpf_htons(ETH_P_IPV6);
	if (!packet_parse(&packet, ipv6, data, end))
		return XDP_PASS;
	for (int i = 0; i < 3; i++) {
		__u16 other = mac[i];

		mac[i] = mac[3 + i];
		mac[3 + i] = other;
	}
	return tuple_ports(&packet.tuple) ? XDP_TX : XDP_PASS;
}
