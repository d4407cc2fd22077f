/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs that do nothing: what the kernel charges for having a hook at all. Everything that ours
 * cost beyond that is our own doing.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define EMPTY(hook, context)                                                                       \
	SEC("cgroup/" #hook)                                                                       \
	int svc_##hook(struct context *ctx)                                                        \
	{                                                                                          \
		return 1;                                                                          \
	}

/* Or asks the kernel which socket it is, as every program must that remembers sockets. */
const volatile bool ask_cookie = false;

SEC("cgroup/connect4")
int svc_connect4(struct bpf_sock_addr *ctx)
{
	return !ask_cookie || bpf_get_socket_cookie(ctx);
}

EMPTY(connect6, bpf_sock_addr)
EMPTY(sendmsg4, bpf_sock_addr)
EMPTY(sendmsg6, bpf_sock_addr)
EMPTY(recvmsg4, bpf_sock_addr)
EMPTY(recvmsg6, bpf_sock_addr)
EMPTY(getpeername4, bpf_sock_addr)
EMPTY(getpeername6, bpf_sock_addr)
EMPTY(sock_release, bpf_sock)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
