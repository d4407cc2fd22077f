/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times socket calls by the thread's CPU clock, on one CPU, without an interpreter in between.
 * Each line of input, "TASK RUNS COUNT ADDRESS PORT SPAN STEP PLACE", asks for RUNS times COUNT
 * calls to some of the SPAN addresses STEP apart that begin with ADDRESS, made in the network
 * namespace of the file PLACE ("-": where the last ones were made). The answer is three numbers of
 * nanoseconds: CPU for COUNT calls together, of all runs the least, since whatever disturbs a run
 * can only add to it; and where the task has single calls or exchanges, the median and the 99th
 * percentile of how long one took on the wall clock, of all runs, else zeros. The task "tcp-until"
 * is another matter: see there. The servers are its own, in another network namespace if one is
 * given, so that one thread does all the work. Knows nothing of Services and cgroups: it is put
 * where it shall measure.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH	512   /* sockets open at a time */
#define FLIGHT	64    /* datagrams under way at a time */
#define WARM_UP 64    /* calls before the clock starts */
#define BLOCK	32768 /* bytes of a stream that are under way at a time: any window holds them */
#define MESSAGE 64    /* bytes of a request, and of its answer */
#define SECONDS 60    /* for one question: a packet that got lost is waited for no longer */

struct question {
	long count;
	struct sockaddr_in target[BATCH];
};

static int listener, receiver; /* on every address, at the port that is asked for */

static uint64_t walls[1 << 16]; /* how long single calls took; older ones are overwritten */
static size_t wall_count;

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

static uint64_t wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void wall_add(uint64_t start)
{
	walls[wall_count++ % (sizeof(walls) / sizeof(walls[0]))] = wall_ns() - start;
}

static int wall_compare(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

	return a < b ? -1 : a > b;
}

/* Of the sorted walls. */
static uint64_t wall_percentile(int percent)
{
	return wall_count ? walls[(wall_count - 1) * percent / 100] : 0;
}

static int open_socket(int type)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	check(fd, "open a socket");
	return fd;
}

static void connect_to(int fd, const struct sockaddr_in *target)
{
	if (connect(fd, (const struct sockaddr *)target, sizeof(*target)) == 0)
		return;
	fprintf(stderr, "probe: Cannot connect to %s: %s\n", inet_ntoa(target->sin_addr),
		strerror(errno));
	exit(1);
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

/*
 * socket(), connect() and close(): what a socket's record costs until it is gone. TCP closes in
 * order; the server's reset comes after the clock, so that nothing waits in TIME_WAIT.
 */
static uint64_t time_life(const struct question *question, int type)
{
	uint64_t total = 0;

	for (long left = question->count; left > 0; left -= BATCH) {
		int count = left < BATCH ? left : BATCH;
		uint64_t start = cpu_ns();

		for (int i = 0; i < count; i++) {
			int fd = open_socket(type);
			uint64_t call = wall_ns();

			connect_to(fd, &question->target[i]);
			wall_add(call);
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

/* A fresh socket for each question, as resolvers do, which ends with the answer. */
static uint64_t time_udp_ask(const struct question *question)
{
	uint64_t start = cpu_ns();

	for (long i = 0; i < question->count; i++) {
		uint64_t exchange = wall_ns();
		int fd = open_socket(SOCK_DGRAM);
		char data[64];

		connect_to(fd, &question->target[i % BATCH]);
		check(send(fd, "question", 8, 0), "send a datagram");
		answer();
		check(recv(fd, data, sizeof(data), 0), "receive an answer");
		close(fd);
		wall_add(exchange);
	}
	return cpu_ns() - start;
}

static void write_all(int fd, const char *data, size_t length)
{
	for (ssize_t done; length > 0; data += done, length -= done) {
		done = write(fd, data, length);
		check(done, "write");
	}
}

static void read_all(int fd, char *data, size_t length)
{
	for (ssize_t done; length > 0; data += done, length -= done) {
		done = read(fd, data, length);
		check(done - 1, "read to the end");
	}
}

/* A connection to the target: the client's end, and the server's at `*served`. */
static int establish(const struct question *question, int *served)
{
	int fd = open_socket(SOCK_STREAM), on = 1;

	connect_to(fd, question->target);
	*served = accept(listener, NULL, NULL);
	check(*served, "accept");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(*served, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void exchange(int client, int server, size_t request, size_t answered)
{
	static char data[BLOCK];

	write_all(client, data, request);
	read_all(server, data, request);
	write_all(server, data, answered);
	read_all(client, data, answered);
}

/* Requests and answers on one connection that is established. */
static uint64_t time_established(const struct question *question, size_t request, size_t answered)
{
	int server, client = establish(question, &server);
	uint64_t start;

	for (int i = 0; i < WARM_UP; i++)
		exchange(client, server, request, answered);
	start = cpu_ns();
	for (long i = 0; i < question->count; i++) {
		uint64_t one = wall_ns();

		exchange(client, server, request, answered);
		wall_add(one);
	}
	start = cpu_ns() - start;
	reset(client);
	close(server);
	return start;
}

static uint64_t time_tcp_request(const struct question *question)
{
	return time_established(question, MESSAGE, MESSAGE);
}

static uint64_t time_tcp_stream(const struct question *question)
{
	return time_established(question, BLOCK, 0);
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
	{ "udp-receive", time_udp_receive }, { "udp-ask", time_udp_ask },
	{ "tcp-request", time_tcp_request }, { "tcp-stream", time_tcp_stream },
	{ "tcp-until", await_endpoint },
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

/* New sockets are made in the network namespace of that file. */
static void enter(const char *namespace)
{
	int fd = open(namespace, O_RDONLY | O_CLOEXEC);

	check(fd, "open a network namespace");
	check(setns(fd, CLONE_NEWNET), "enter a network namespace");
	close(fd);
}

/* Listens in another network namespace, and stays in this one. */
static void serve_in(const char *namespace, int port)
{
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	enter(namespace);
	serve(port);
	check(setns(here, CLONE_NEWNET), "come back");
	close(here);
}

static uint64_t ask(const char *name, const struct question *question)
{
	for (size_t i = 0; i < sizeof(tasks) / sizeof(tasks[0]); i++)
		if (strcmp(tasks[i].name, name) == 0)
			return tasks[i].run(question);
	fprintf(stderr, "probe: There is no task \"%s\"\n", name);
	exit(2);
}

/* Which addresses a line of input means. */
struct range {
	uint32_t from;
	unsigned int port, span, step;
};

/*
 * Draws targets, never in order, and evenly: where the cost of a call depends on its target (the
 * place of its rule in a list), all runs ask for the same on average.
 */
static void draw(struct question *question, const struct range *range)
{
	uint32_t position = random() * 2U;

	for (int i = 0; i < BATCH; i++) {
		uint32_t index = (uint64_t)range->span * position >> 32;

		question->target[i].sin_family = AF_INET;
		question->target[i].sin_port = htons(range->port);
		question->target[i].sin_addr.s_addr = htonl(range->from + index * range->step);
		position += 0x9e3779b9; /* the golden ratio, which spreads any number of them */
	}
}

/* Its servers listen at PORT, in the network namespace of that file or in this one. */
int main(int argc, char **argv)
{
	static struct question question;
	struct rlimit files = { .rlim_cur = 4 * BATCH, .rlim_max = 4 * BATCH };
	char name[32], address[32], place[256];
	struct range range;
	int runs;

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
	while (scanf("%31s %d %ld %31s %u %u %u %255s", name, &runs, &question.count, address,
		     &range.port, &range.span, &range.step, place) == 8) {
		uint64_t least = UINT64_MAX;

		if (strcmp(place, "-") != 0)
			enter(place);
		range.from = ntohl(inet_addr(address));
		wall_count = 0;
		alarm(SECONDS);
		while (runs--) {
			uint64_t cpu;

			draw(&question, &range);
			cpu = ask(name, &question);
			least = cpu < least ? cpu : least;
		}
		alarm(0);
		qsort(walls, wall_count, sizeof(walls[0]), wall_compare);
		printf("%llu %llu %llu\n", (unsigned long long)least,
		       (unsigned long long)wall_percentile(50),
		       (unsigned long long)wall_percentile(99));
		fflush(stdout);
	}
	return 0;
}
