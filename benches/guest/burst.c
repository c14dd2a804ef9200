/* SPDX-License-Identifier: MIT */
/*
 * Processes that die at once: `burst PROCESSES ROUNDS`. Each is on a processor of its own, as long as there are enough, and its stack is larger
 * than the copy of it in a record. A round begins when a second has passed.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK (96 * 1024)

static atomic_long *ready;

__attribute__((noinline)) static void die(long processes)
{
	char room[STACK];

	for (int at = 0; at < STACK; at += 4096)
		((volatile char *)room)[at] = 1;
	/* Another round has as many more. */
	atomic_fetch_add(ready, 1);
	while (atomic_load(ready) % processes)
		sched_yield();
	*(volatile int *)0x18 = room[0];
}

int main(int argc, char **argv)
{
	long processes = argc > 1 ? atol(argv[1]) : 1, rounds = argc > 2 ? atol(argv[2]) : 1;
	struct rlimit none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
	ready = mmap(NULL, sizeof(*ready), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ready == MAP_FAILED || processes < 1)
		return 2;
	for (long round = 0; round < rounds; round++) {
		sleep(1);
		for (long number = 0; number < processes; number++) {
			cpu_set_t one;

			if (fork())
				continue;
			CPU_ZERO(&one);
			CPU_SET((size_t)number, &one);
			sched_setaffinity(0, sizeof(one), &one);
			die(processes);
		}
		while (wait(NULL) > 0)
			;
	}
	return 0;
}
