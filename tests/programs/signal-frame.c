/* SPDX-License-Identifier: MIT */
/*
 * A thread that has never faulted sends itself a signal 256 bytes above the end of its stack, where the handler's frame finds no
 * room: the kernel ends the process by a SIGSEGV without an address. Nothing has touched the guard page.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: fault_type kernel
 * expect: fault_address null
 * expect: page_fault null
 * expect: disposition fatal
 * expect: diagnosis.kind stack_overflow
 * expect: diagnosis.confidence likely
 */
#include "truth.h"

#include "stack-end.h"

static void *run(void *unused)
{
	signal_at(stack_end() + 256);
	return unused;
}

int main(void)
{
	pthread_join(start(run), NULL);
	return 0;
}
