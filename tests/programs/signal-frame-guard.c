/* SPDX-License-Identifier: MIT */
/*
 * A thread sends itself a signal while its stack pointer is in the guard page below its stack, which it has not touched: the kernel
 * cannot write the frame of the handler there, and ends the process by a SIGSEGV without an address.
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
	signal_at(stack_end() - 256);
	return unused;
}

int main(void)
{
	pthread_join(start(run), NULL);
	return 0;
}
