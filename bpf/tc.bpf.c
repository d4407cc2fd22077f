/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packet path in the stack: on the way in requests are translated, on the way out replies; what
 * must not meet the stack is sent on from here. Serves every device, alone or behind xdp.bpf.c.
 */
#include "maps.h"

#define TC_ACT_UNSPEC (-1) /* the next program decides */

SEC("tc")
int svc_tc_ingress(struct __sk_buff *ctx)
{
	return TC_ACT_UNSPEC;
}

SEC("tc")
int svc_tc_egress(struct __sk_buff *ctx)
{
	return TC_ACT_UNSPEC;
}

SEC("tc")
int svc_tc_ingress_l3(struct __sk_buff *ctx)
{
	return TC_ACT_UNSPEC;
}

SEC("tc")
int svc_tc_egress_l3(struct __sk_buff *ctx)
{
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
