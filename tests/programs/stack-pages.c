/* SPDX-License-Identifier: MIT */
/*
 * Dies FILLERS times without a stack, and then, if BIG is 1, once with a stack of 480 KiB: `stack-pages FILLERS BIG`. Each death is that
 * of a child, one after the other; the parent exits with 0. SIGSEGV, SEGV_MAPERR, all at the same address, above all mappings.
 *
 * A death without a stack has a stack pointer that lies above every mapping, too: its sample has no pages, and is as long as that of
 * the last death, which comes behind 121 pages. So a test that knows the length of a sample can fill a ring that nobody reads so that
 * the last death finds room for its sample and some pages, and not for all of them.
 *
 * build: -static -O1
 */
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "truth.h"

#ifdef __x86_64__
#define NOWHERE	  0x7fffffffe000UL
#define NO_STACK  "mov %0, %%rsp\n\tmovl $1, (%0)"
#else
#define NOWHERE	  0x1000000000000UL
#define NO_STACK  "mov sp, %0\n\tstr wzr, [%0]"
#endif
#define BIG_BYTES (480UL << 10)

__attribute__((noinline)) static void die_without_stack(void)
{
	__asm__ volatile(NO_STACK : : "r"(NOWHERE) : "memory");
}

__attribute__((noinline)) static void die_with_stack(void)
{
	volatile char big[BIG_BYTES];

	for (unsigned long at = 0; at < BIG_BYTES; at += 4096)
		big[at] = 1;
	*(volatile int *)NOWHERE = big[0];
}

int main(int argc, char **argv)
{
	long fillers = argc > 1 ? atol(argv[1]) : 0, big = argc > 2 ? atol(argv[2]) : 0;

	prctl(PR_SET_DUMPABLE, 0);
	for (long i = 0; i < fillers + big; i++) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			if (i < fillers)
				die_without_stack();
			die_with_stack();
			_exit(1);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || !WIFSIGNALED(status))
			return 2;
	}
	return 0;
}
