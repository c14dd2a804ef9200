/* SPDX-License-Identifier: MIT */
/*
 * Handles five faults in one place at once, and a sixth one more than a second later. main() lies 32 KiB up the stack, and only call frame
 * information leads there. Two frames have that size, as a function has its return address at the end of its frame on arm64.
 *
 * build: -O1 -fomit-frame-pointer
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>

#include "recover.h"
#include "truth.h"

__attribute__((noinline)) static void touch(void)
{
	*(volatile int *)0x18 = 1;
}

__attribute__((noinline)) static void far_below(int times)
{
	char room[16384];

	for (volatile int done = 0; done < times; done++)
		if (sigsetjmp(back, 1) == 0)
			touch();
	__asm__ volatile("" ::"r"(room) : "memory");
}

__attribute__((noinline)) static void farther_below(int times)
{
	char room[16384];

	far_below(times);
	__asm__ volatile("" ::"r"(room) : "memory");
}

int main(void)
{
	struct sigaction action = { .sa_handler = recover };
	cpu_set_t one;

	/* What was sent is remembered by processor. */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	sigaction(SIGSEGV, &action, NULL);
	farther_below(5);
	usleep(1300 * 1000);
	farther_below(1);
	return 0;
}
