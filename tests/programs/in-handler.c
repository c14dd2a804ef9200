/* SPDX-License-Identifier: MIT */
/*
 * Dies in a signal handler on an alternate stack: the stack trace goes on with the code that the signal interrupted.
 *
 * build: -O2 -fomit-frame-pointer
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x18
 * expect: disposition fatal
 * expect: diagnosis.kind null_dereference
 * expect: unwinder eh_frame
 * expect: frames touch handle
 */
#include "truth.h"

#include <signal.h>

__attribute__((noinline)) static void touch(volatile int *where)
{
	*where = 1;
	__asm__ volatile("" ::: "memory");
}

static void handle(int signal)
{
	touch((volatile int *)0x18);
	signal++;
	__asm__ volatile("" ::"r"(signal) : "memory");
}

__attribute__((noinline)) static int interrupted(void)
{
	raise(SIGUSR1);
	return getpid();
}

int main(void)
{
	signal(SIGUSR1, handle);
	return interrupted() + 1;
}
