/* SPDX-License-Identifier: MIT */
/*
 * A thread recovers from a general protection fault (on arm64 from a page fault). Later, near the end of its stack, it sends itself a signal whose frame finds
 * no room: the kernel ends the process by a SIGSEGV that comes without a trap, and remembers that fault as the thread's last one.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: fault_type kernel
 * expect: fault_address null
 * expect: page_fault null
 * expect: disposition fatal
 * expect: diagnosis.kind stack_overflow
 */
#include "truth.h"

#include "recover.h"
#include "stack-end.h"

static void *run(void *unused)
{
	if (!sigsetjmp(back, 1))
		*(volatile char *)0xdead000000000000UL = 1;
	signal(SIGSEGV, SIG_DFL);
	signal_at(stack_end() + 256);
	return unused;
}

int main(void)
{
	signal(SIGSEGV, recover);
	pthread_join(start(run), NULL);
	return 0;
}
