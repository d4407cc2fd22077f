/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs that do nothing: what the kernel charges for having a hook at all. Everything that ours
 * cost beyond that is our own doing.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define EMPTY(hook)                                                                                \
	SEC("cgroup/" #hook)                                                                       \
	int svc_##hook(struct bpf_sock_addr *ctx)                                                  \
	{                                                                                          \
		return 1;                                                                          \
	}

EMPTY(connect4)
EMPTY(connect6)
EMPTY(sendmsg4)
EMPTY(sendmsg6)
EMPTY(recvmsg4)
EMPTY(recvmsg6)
EMPTY(getpeername4)
EMPTY(getpeername6)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
