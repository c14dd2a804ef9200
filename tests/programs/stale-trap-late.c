/* SPDX-License-Identifier: MIT */
/*
 * As stale-trap, but the thread computes when the signal comes: the kernel was entered by an interrupt, which looks like a trap. As the
 * frame finds no room, there may have been no trap, so that the record says neither.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: fault_type kernel
 * expect: fault_address null
 * expect: page_fault null
 * expect: disposition fatal
 * expect: diagnosis null
 * on arm64: diagnosis.kind stack_overflow
 * on arm64, because: an interrupt does not look like a fault
 */
#include "truth.h"

#include "recover.h"
#include "stack-end.h"

static volatile int is_ready;

static void *run(void *unused)
{
	if (!sigsetjmp(back, 1))
		*(volatile char *)0xdead000000000000UL = 1;
	signal(SIGSEGV, SIG_DFL);
#ifdef __x86_64__
	__asm__ volatile("mov %0, %%rsp\n\tmovl $1, (%1)\n1:\tpause\n\tjmp 1b" ::"r"(stack_end() + 256), "r"(&is_ready)
			 : "memory");
#else
	__asm__ volatile("mov sp, %0\n\tmov w9, #1\n\tstr w9, [%1]\n1:\tyield\n\tb 1b" ::"r"(stack_end() + 256), "r"(&is_ready)
			 : "x9", "memory");
#endif
	return unused;
}

int main(void)
{
	pthread_t thread;

	signal(SIGSEGV, recover);
	thread = start(run);
	while (!is_ready)
		;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	return 0;
}
