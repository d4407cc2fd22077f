/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times socket calls by the thread's CPU clock, on one CPU, without an interpreter in between.
 * Each line of input, "TASK COUNT ADDRESS PORT SPAN STEP", asks for COUNT calls to addresses drawn
 * from the SPAN addresses STEP apart that begin with ADDRESS; the answer is nanoseconds of CPU for
 * all COUNT together. The task "tcp-until" is another matter: see there. The servers are its own,
 * in another network namespace if one is given, so that one thread does all the work. Knows nothing
 * of Services and cgroups: it is put where it shall measure.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH	512 /* sockets open at a time */
#define FLIGHT	64  /* datagrams under way at a time */
#define WARM_UP 64  /* calls before the clock starts */

struct question {
	long count;
	struct sockaddr_in target[BATCH];
};

static int listener, receiver; /* on every address, at the port that is asked for */

static void check(long result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "probe: Cannot %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static int open_socket(int type)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	check(fd, "open a socket");
	return fd;
}

static void connect_to(int fd, const struct sockaddr_in *target)
{
	check(connect(fd, (const struct sockaddr *)target, sizeof(*target)), "connect");
}

/* Closes without leaving a port in TIME_WAIT. */
static void reset(int fd)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

static void accept_all(int count)
{
	while (count--) {
		int fd = accept(listener, NULL, NULL);

		check(fd, "accept");
		reset(fd);
	}
}

/* connect() of one UDP socket, again and again, to one address. */
static uint64_t time_udp_same(const struct question *question)
{
	int fd = open_socket(SOCK_DGRAM);
	uint64_t start;

	for (int i = 0; i < WARM_UP; i++)
		connect_to(fd, question->target);
	start = cpu_ns();
	for (long i = 0; i < question->count; i++)
		connect_to(fd, question->target);
	start = cpu_ns() - start;
	close(fd);
	return start;
}

/* connect() of sockets that have never connected before; only that call is timed. */
static uint64_t time_fresh(const struct question *question, int type)
{
	static int fds[BATCH];
	uint64_t total = 0;

	for (long left = question->count; left > 0; left -= BATCH) {
		int count = left < BATCH ? left : BATCH;
		uint64_t start;

		for (int i = 0; i < count; i++)
			fds[i] = open_socket(type);
		start = cpu_ns();
		for (int i = 0; i < count; i++)
			connect_to(fds[i], &question->target[i]);
		total += cpu_ns() - start;
		if (type == SOCK_STREAM)
			accept_all(count);
		for (int i = 0; i < count; i++)
			close(fds[i]);
	}
	return total;
}

static uint64_t time_udp_fresh(const struct question *question)
{
	return time_fresh(question, SOCK_DGRAM);
}

static uint64_t time_tcp_fresh(const struct question *question)
{
	return time_fresh(question, SOCK_STREAM);
}

/* socket(), connect() and close(): what a socket's record costs until it is gone. */
static uint64_t time_life(const struct question *question, int type)
{
	uint64_t total = 0;

	for (long left = question->count; left > 0; left -= BATCH) {
		int count = left < BATCH ? left : BATCH;
		uint64_t start = cpu_ns();

		for (int i = 0; i < count; i++) {
			int fd = open_socket(type);

			connect_to(fd, &question->target[i]);
			if (type == SOCK_STREAM)
				reset(fd);
			else
				close(fd);
		}
		total += cpu_ns() - start;
		if (type == SOCK_STREAM)
			accept_all(count);
	}
	return total;
}

static uint64_t time_udp_life(const struct question *question)
{
	return time_life(question, SOCK_DGRAM);
}

static uint64_t time_tcp_life(const struct question *question)
{
	return time_life(question, SOCK_STREAM);
}

/* Takes a datagram in and answers it from the address that it was sent to. */
static void answer(void)
{
	char data[64], control[CMSG_SPACE(sizeof(struct in_pktinfo))];
	struct sockaddr_in client;
	struct iovec piece = { .iov_base = data, .iov_len = sizeof(data) };
	struct msghdr message = { .msg_name = &client, .msg_namelen = sizeof(client) };
	struct in_pktinfo *information;
	ssize_t length;

	message.msg_iov = &piece;
	message.msg_iovlen = 1;
	message.msg_control = control;
	message.msg_controllen = sizeof(control);
	length = recvmsg(receiver, &message, 0);
	check(length, "receive a datagram");
	piece.iov_len = length;
	information = (struct in_pktinfo *)CMSG_DATA(CMSG_FIRSTHDR(&message));
	information->ipi_spec_dst = information->ipi_addr;
	information->ipi_ifindex = 0;
	check(sendmsg(receiver, &message, 0), "answer a datagram");
}

/* sendto() of one unconnected socket, and recvfrom() of the answers. */
static void time_datagrams(const struct question *question, uint64_t *sending, uint64_t *receiving)
{
	const struct sockaddr *target = (const struct sockaddr *)question->target;
	int fd = open_socket(SOCK_DGRAM);
	uint64_t start;

	*sending = 0;
	*receiving = 0;
	for (long left = question->count + FLIGHT; left > 0; left -= FLIGHT) {
		if (left == question->count) {
			*sending = 0;
			*receiving = 0;
		}
		start = cpu_ns();
		for (int i = 0; i < FLIGHT; i++)
			check(sendto(fd, "question", 8, 0, target, sizeof(struct sockaddr_in)),
			      "send a datagram");
		*sending += cpu_ns() - start;
		for (int i = 0; i < FLIGHT; i++)
			answer();
		start = cpu_ns();
		for (int i = 0; i < FLIGHT; i++) {
			struct sockaddr_in sender;
			socklen_t length = sizeof(sender);
			char data[64];

			check(recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&sender,
				       &length),
			      "receive an answer");
			if (sender.sin_addr.s_addr != question->target->sin_addr.s_addr) {
				fprintf(stderr, "probe: An answer came from %s\n",
					inet_ntoa(sender.sin_addr));
				exit(1);
			}
		}
		*receiving += cpu_ns() - start;
	}
	close(fd);
}

static uint64_t time_udp_send(const struct question *question)
{
	uint64_t sending, receiving;

	time_datagrams(question, &sending, &receiving);
	return sending;
}

static uint64_t time_udp_receive(const struct question *question)
{
	uint64_t sending, receiving;

	time_datagrams(question, &sending, &receiving);
	return receiving;
}

/*
 * Connects, about every 100 microseconds, until the connection arrives at the address that COUNT
 * is as a number. The answer is the time of that, in nanoseconds of CLOCK_MONOTONIC.
 */
static uint64_t await_endpoint(const struct question *question)
{
	struct sockaddr_in local = { 0 };
	struct timespec now;

	while (ntohl(local.sin_addr.s_addr) != question->count) {
		socklen_t length = sizeof(local);
		int fd = open_socket(SOCK_STREAM), accepted;

		connect_to(fd, question->target);
		accepted = accept(listener, NULL, NULL);
		check(accepted, "accept");
		clock_gettime(CLOCK_MONOTONIC, &now);
		check(getsockname(accepted, (struct sockaddr *)&local, &length),
		      "see who is asked");
		reset(fd);
		close(accepted);
		usleep(100);
	}
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static const struct {
	const char *name;
	uint64_t (*run)(const struct question *question);
} tasks[] = {
	{ "udp-same", time_udp_same },	     { "udp-fresh", time_udp_fresh },
	{ "tcp-fresh", time_tcp_fresh },     { "udp-life", time_udp_life },
	{ "tcp-life", time_tcp_life },	     { "udp-send", time_udp_send },
	{ "udp-receive", time_udp_receive }, { "tcp-until", await_endpoint },
};

static void serve(int port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int on = 1;

	listener = open_socket(SOCK_STREAM);
	receiver = open_socket(SOCK_DGRAM);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(receiver, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
	check(bind(listener, (struct sockaddr *)&any, sizeof(any)), "bind the listener");
	check(bind(receiver, (struct sockaddr *)&any, sizeof(any)), "bind the receiver");
	check(listen(listener, BATCH), "listen");
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	check(sched_setaffinity(0, sizeof(set), &set), "stay on one CPU");
}

/* Listens in another network namespace, and stays in this one. */
static void serve_in(const char *namespace, int port)
{
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int there = open(namespace, O_RDONLY | O_CLOEXEC);

	check(there, "open the servers' network namespace");
	check(setns(there, CLONE_NEWNET), "enter the servers' network namespace");
	serve(port);
	check(setns(here, CLONE_NEWNET), "come back");
	close(here);
	close(there);
}

static uint64_t ask(const char *name, const struct question *question)
{
	for (size_t i = 0; i < sizeof(tasks) / sizeof(tasks[0]); i++)
		if (strcmp(tasks[i].name, name) == 0)
			return tasks[i].run(question);
	fprintf(stderr, "probe: There is no task \"%s\"\n", name);
	exit(2);
}

/* Its servers listen at PORT, in the network namespace of that file or in this one. */
int main(int argc, char **argv)
{
	static struct question question;
	struct rlimit files = { .rlim_cur = 4 * BATCH, .rlim_max = 4 * BATCH };
	char name[32], address[32];
	unsigned int port, span, step;

	if (argc != 3 && argc != 4) {
		fprintf(stderr, "Usage: probe CPU PORT [NAMESPACE]\n");
		return 2;
	}
	setrlimit(RLIMIT_NOFILE, &files);
	pin(atoi(argv[1]));
	if (argc == 4)
		serve_in(argv[3], atoi(argv[2]));
	else
		serve(atoi(argv[2]));
	srandom(1);
	while (scanf("%31s %ld %31s %u %u %u", name, &question.count, address, &port, &span,
		     &step) == 6) {
		for (int i = 0; i < BATCH; i++) {
			uint32_t host = ntohl(inet_addr(address)) + random() % span * step;

			question.target[i].sin_family = AF_INET;
			question.target[i].sin_port = htons(port);
			question.target[i].sin_addr.s_addr = htonl(host);
		}
		printf("%llu\n", (unsigned long long)ask(name, &question));
		fflush(stdout);
	}
	return 0;
}
