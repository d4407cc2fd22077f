/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packet path in the driver: what leaves again by XDP is translated and sent on here; all else
 * is passed on untouched, and tc.bpf.c on the same device translates it. Knows plain TCP, UDP and
 * SCTP alone.
 */
#define PROGRAM_CONTEXT xdp_md
#include "maps.h"
#include "packet.h"
#include "balance.h"
#include "flow.h"
#include "forward.h"
#include "rewrite.h"
#include "passage.h"

/* The headers of a plain packet: its transport header is where the IP header ends. */
struct headers {
	struct ethhdr *ethernet;
	struct iphdr *ipv4; /* of ipv4 and ipv6 the packet has one */
	struct ipv6hdr *ipv6;
	void *transport;
	void *end;
	/* As in struct packet, which the verifier forgets at a call. */
	__u32 protocol;
	bool is_ipv6;
};

static __always_inline void headers_find(struct xdp_md *ctx, bool ipv6, struct headers *headers)
{
	headers->ethernet = (void *)(long)ctx->data;
	headers->ipv4 = (void *)(headers->ethernet + 1);
	headers->ipv6 = (void *)(headers->ethernet + 1);
	headers->transport = ipv6 ? (void *)(headers->ipv6 + 1) : (void *)(headers->ipv4 + 1);
	headers->end = (void *)(long)ctx->data_end;
	headers->is_ipv6 = ipv6;
}

/* What the IP header says of its length, checked against what is there; IPv4: and its checksum. */
static __always_inline bool headers_are_sound(const struct headers *headers,
					      const struct packet *packet)
{
	const __u32 *word = (const __u32 *)headers->ipv4;
	__u64 sum = 0;

	if ((void *)headers->ipv4 + packet->length > headers->end)
		return false;
	if (headers->is_ipv6)
		return true;
#pragma unroll
	for (int i = 0; i < 5; i++)
		sum += word[i];
	return sum_fold(sum) == 0xffff;
}

/* Where a packet's checksum is, NULL if it is not all there. SCTP's has four bytes. */
static __always_inline void *headers_check(const struct headers *headers)
{
	void *header = headers->transport;

	switch (headers->protocol) {
	case FLOW_TCP:
		return header + TCP_BYTES > headers->end ? NULL : header + TCP_CHECK_OFFSET;
	case FLOW_UDP:
		return header + UDP_BYTES > headers->end ? NULL : header + UDP_CHECK_OFFSET;
	}
	return header + SCTP_BYTES > headers->end ? NULL : header + SCTP_CHECK_OFFSET;
}

/*
 * Whether a checksum seems to be one that the sender leaves to its device, as on a veth: the field
 * has the pseudo header's sum, and nothing in XDP can tell more. One in 65536 that is complete
 * seems so too; TC takes care of either.
 */
static __always_inline bool checksum_is_partial(const struct headers *headers,
						const struct packet *packet, const void *check)
{
	__u16 sum;

	if (headers->protocol == FLOW_SCTP)
		return !*(const __u32 *)check;
	if (headers->protocol == FLOW_UDP && !*(const __u16 *)check)
		return false;
	sum = pseudo_sum(&packet->tuple, transport_bytes(packet), headers->is_ipv6);
	return *(const __u16 *)check == (sum == 0xffff ? 0 : sum) || *(const __u16 *)check == sum;
}

static __always_inline void checksum_rewrite(const struct headers *headers,
					     const struct packet *packet, void *check, __u64 sum,
					     const struct tuple *wanted)
{
	__u16 *field = check;

	if (headers->protocol == FLOW_SCTP) {
		__u32 ports = tuple_ports(&packet->tuple) ^ tuple_ports(wanted);

		*(__u32 *)check ^= crc_difference(ports, transport_bytes(packet));
		return;
	}
	if (headers->protocol == FLOW_UDP && !*field)
		return;
	*field = checksum_after(*field, sum + sum_of_ports(&packet->tuple, wanted));
	if (headers->protocol == FLOW_UDP && !*field)
		*field = 0xffff;
}

/* One router more has been passed, and the addresses are others. */
static __always_inline void network_rewrite(const struct headers *headers, __u64 sum,
					    const struct tuple *wanted)
{
	if (headers->is_ipv6) {
		headers->ipv6->hop_limit--;
		__builtin_memcpy(&headers->ipv6->saddr, &wanted->source, 16);
		__builtin_memcpy(&headers->ipv6->daddr, &wanted->destination, 16);
		return;
	}
	headers->ipv4->ttl--;
	headers->ipv4->check =
		checksum_after(headers->ipv4->check, sum + (__u16)~bpf_htons(0x0100));
	headers->ipv4->saddr = wanted->source.word[3];
	headers->ipv4->daddr = wanted->destination.word[3];
}

/*
 * The row that leads to where a flow's packets go: the one that it keeps, or another one if that is
 * out of force. Once in a while the kernel is asked whether it still says so.
 */
static __always_inline struct hop *flow_hop(struct xdp_md *ctx, __u64 found,
					    const struct passage *passage, __u32 now)
{
	struct hop *hop = hop_lookup(passage->flow.hop);
	struct way way;

	if (hop && hop_is_trusted(passage->flow.last_used, now)) {
		if (hop->checked == now)
			return hop;
		hop->checked = now; /* others need not ask at the same time */
	}
	if (!fib_find(ctx, ctx->ingress_ifindex, &passage->wanted, &way))
		way.hop = 0;
	if (way.hop != passage->flow.hop)
		flow_lead(found, way.hop);
	return hop_lookup(way.hop);
}

/* A packet becomes what its flow says. */
static __always_inline void headers_rewrite(const struct headers *headers, void *check,
					    const struct passage *passage)
{
	const struct tuple *wanted = &passage->wanted;
	__u64 sum = sum_of_addresses(&passage->packet.tuple, wanted, headers->is_ipv6);

	checksum_rewrite(headers, &passage->packet, check, sum, wanted);
	*(__u32 *)headers->transport = tuple_ports(wanted);
	network_rewrite(headers, sum, wanted);
}

/* The frame's start after the packet has been put into a tunnel to its flow's endpoint; else NULL.
 */
static __always_inline void *headers_encapsulate(struct xdp_md *ctx, const struct headers *headers,
						 const struct passage *passage, __u32 source_index)
{
	const struct address *source = node_source(source_index);
	__u32 bytes = tunnel_bytes(headers->is_ipv6);
	struct outer outer = {};
	void *data;

	if (!source)
		return NULL;
	network_rewrite(headers, 0, &passage->packet.tuple);
	outer_fill(&outer, &passage->packet, &passage->flow, source);
	if (bpf_xdp_adjust_head(ctx, -(int)bytes))
		return NULL;
	data = (void *)(long)ctx->data;
	if (data + sizeof(struct ethhdr) + sizeof(struct ipv6hdr) > (void *)(long)ctx->data_end)
		return NULL;
	if (headers->is_ipv6)
		__builtin_memcpy(data + sizeof(struct ethhdr), &outer.ipv6, sizeof(outer.ipv6));
	else
		__builtin_memcpy(data + sizeof(struct ethhdr), &outer.ipv4, sizeof(outer.ipv4));
	return data;
}

/* 0 if a frame is addressed to this MAC address, of which two bytes more can be read. */
static __always_inline __u64 frame_difference(const struct headers *headers, const __u8 *mac)
{
	const __u8 *to = (const __u8 *)headers->ethernet;

	return (*(const __u64 *)to ^ *(const __u64 *)mac) & bpf_cpu_to_be64(~0ULL << 16);
}

/* Whether this device has heard a packet that is addressed to another host. */
static __always_inline bool is_overheard(struct xdp_md *ctx, const struct headers *headers,
					 struct heard *heard, const struct hop *hop, __u32 now)
{
	const struct device *device;

	if (hop->ifindex == ctx->ingress_ifindex) /* then its own address is at hand */
		return frame_difference(headers, hop->header + 6);
	if (heard->ifindex != ctx->ingress_ifindex || heard->asked != now) {
		device = device_lookup(ctx->ingress_ifindex);
		if (!device)
			return false;
		heard->mac = *(const __u64 *)device->mac;
		heard->ifindex = ctx->ingress_ifindex;
		heard->asked = now;
	}
	return frame_difference(headers, (const __u8 *)&heard->mac);
}

/* Sends a packet on as its flow says. What XDP cannot send is passed on untouched. */
static __always_inline int send(struct xdp_md *ctx, const struct headers *headers,
				const struct passage *passage, const struct hop *hop)
{
	bool tunnel = flow_path(passage->flow.lock) == FLOW_TUNNEL;
	__u32 length = passage->packet.length + (tunnel ? tunnel_bytes(headers->is_ipv6) : 0);
	__u16 generation = READ_ONCE(hop->generation);
	void *check = headers_check(headers), *frame = headers->ethernet;
	__u32 ifindex = hop->ifindex, source = hop->source;
	__u64 header[2];

	if (generation & 1 || !hop->sends_frames || length > hop->mtu || passage->packet.ttl <= 1 ||
	    !check || checksum_is_partial(headers, &passage->packet, check))
		return XDP_PASS;
	header[0] = *(const __u64 *)hop->header;
	header[1] = *(const __u64 *)(hop->header + 6);
	barrier();
	if (READ_ONCE(hop->generation) != generation)
		return XDP_PASS;
	if (tunnel)
		frame = headers_encapsulate(ctx, headers, passage, source);
	else
		headers_rewrite(headers, check, passage);
	if (!frame)
		return XDP_DROP;
	*(__u64 *)frame = header[0];
	*(__u64 *)(frame + 6) = header[1];
	return ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(ifindex, 0);
}

/* A packet without a flow: begins one, if it can leave by XDP or its way is decided here. */
static __always_inline int begin(struct xdp_md *ctx, struct passage *passage,
				 const struct headers *headers)
{
	const struct device *device;

	passage->ifindex = ctx->ingress_ifindex;
	passage->leaving = false;
	device = passage_locate(passage);
	if (device && device->is_uplink && frame_difference(headers, device->mac))
		return XDP_PASS;
	if (passage_may_reply(passage)) /* TC can ask */
		return XDP_PASS;
	switch (passage_begin(ctx, passage)) {
	case VERDICT_FORWARD:
		return XDP_TX;
	case VERDICT_DROP:
		refusal_count(&passage->choice);
		return XDP_DROP;
	}
	return XDP_PASS;
}

static __always_inline int handle(struct xdp_md *ctx, bool ipv6)
{
	struct passage *passage = passage_get();
	const struct node *node = node_get();
	struct headers headers;
	struct packet *packet;
	struct hop *hop;
	__u64 found;
	__u32 now;

	if (!passage || !node)
		return XDP_PASS;
	packet = &passage->packet;
	passage->tunnel.is_open = false;
	headers_find(ctx, ipv6, &headers);
	if (!packet_parse(packet, sizeof(struct ethhdr), ipv6, headers.ethernet, headers.end) ||
	    !packet_is_ours(packet) || packet_is_mapped(packet) ||
	    !headers_are_sound(&headers, packet))
		return XDP_PASS;
	headers.protocol = protocol_from_ip(ipv6 ? headers.ipv6->nexthdr : headers.ipv4->protocol);
	now = flow_now();
	passage->hash = flow_hash(&packet->tuple, node->hash_key);
	found = flow_lookup(&packet->tuple, passage->hash, &passage->flow);
	if (found && flow_is_over(&passage->flow, packet, now)) {
		flow_end(&passage->flow, passage->flow.lock);
		found = 0;
	}
	if (!found) {
		int action = begin(ctx, passage, &headers);

		if (action != XDP_TX)
			return action;
	}
	if (flow_path(passage->flow.lock) != FLOW_REDIRECT &&
	    flow_path(passage->flow.lock) != FLOW_TUNNEL)
		return XDP_PASS;
	flow_wanted(&passage->flow, node, &passage->wanted);
	hop = flow_hop(ctx, found, passage, now);
	if (!hop || is_overheard(ctx, &headers, &passage->heard, hop, now))
		return XDP_PASS;
	if (found)
		flow_meet(found, &passage->flow, packet, now);
	return send(ctx, &headers, passage, hop);
}

static __always_inline int translate(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return handle(ctx, false);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return handle(ctx, true);
	return XDP_PASS;
}

SEC("xdp.frags")
int svc_xdp(struct xdp_md *ctx)
{
	return translate(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
