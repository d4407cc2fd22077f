/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Has the kernel send frames, as fast as it can, on one CPU: runs a pinned XDP program that
 * redirects them out of a device of this network namespace. Each line of input is a number of
 * frames; the answer is nanoseconds of the thread's CPU, in which is all that the kernel did with
 * them on their way, since one end of a veth pair hands over to the other on the same CPU. Knows
 * nothing of what is on the way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FRAME 64 /* bytes; the program writes them anew each time */
#define BATCH 64 /* frames between two looks at what they have caused: softirqs keep up */

static long bpf(int command, union bpf_attr *attributes)
{
	return syscall(__NR_bpf, command, attributes, sizeof(*attributes));
}

static void fail(const char *what)
{
	fprintf(stderr, "sender: Cannot %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void send_frames(int program, uint32_t count)
{
	static uint8_t frame[FRAME];
	union bpf_attr attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.test.prog_fd = program;
	attributes.test.data_in = (uintptr_t)frame;
	attributes.test.data_size_in = sizeof(frame);
	attributes.test.repeat = count;
	attributes.test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
	attributes.test.batch_size = BATCH;
	if (bpf(BPF_PROG_TEST_RUN, &attributes) < 0)
		fail("send frames");
}

int main(int argc, char **argv)
{
	union bpf_attr attributes;
	cpu_set_t set;
	uint32_t count;
	int program;

	if (argc != 3) {
		fprintf(stderr, "Usage: sender CPU PROGRAM\n");
		return 2;
	}
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		fail("stay on one CPU");
	memset(&attributes, 0, sizeof(attributes));
	attributes.pathname = (uintptr_t)argv[2];
	program = bpf(BPF_OBJ_GET, &attributes);
	if (program < 0)
		fail("open the program");
	while (scanf("%u", &count) == 1) {
		uint64_t start = cpu_ns();

		send_frames(program, count);
		printf("%llu\n", (unsigned long long)(cpu_ns() - start));
		fflush(stdout);
	}
	return 0;
}
