/* SPDX-License-Identifier: MIT */
/*
 * Recovers from a fault, and later dies of another one, whose handler was reset: the earlier fault's signal frame lies in a buffer.
 *
 * build: -O2 -fomit-frame-pointer
 * expect: exit 136
 * expect: signal SIGFPE
 * expect: code FPE_INTDIV
 * expect: disposition fatal
 * expect: ended_by null
 * expect: earlier_fault.signal SIGSEGV
 * expect: earlier_fault.fault_address 0x30
 * expect: earlier_fault.confidence certain
 * expect: diagnosis.kind divide_by_zero
 * expect: frames divide main
 * on arm64: exit 132
 * on arm64: signal SIGILL
 * on arm64: code ILL_ILLOPC
 * on arm64: diagnosis.kind illegal_instruction
 * on arm64, because: a division by zero is no fault there, and an instruction that doesn't exist takes its place
 */
#include "truth.h"

#include <signal.h>

#include "recover.h"

DECLARE_AT(fault_here);

/* As libraries probe for what a processor can do. */
__attribute__((noinline)) static int is_readable(volatile int *where)
{
	struct sigaction action = { .sa_handler = recover }, before;
	volatile int answer = 0;

	sigaction(SIGSEGV, &action, &before);
	if (!sigsetjmp(back, 1))
		answer = (*where, 1);
	sigaction(SIGSEGV, &before, NULL);
	return answer;
}

__attribute__((noinline)) static void divide(int zero)
{
	char local[6000];

	local[0] = (char)zero;
	__asm__ volatile("" ::"r"(local) : "memory");
	TRUTH_AT(fault_here);
#ifdef __x86_64__
	AT(fault_here, "idivl %0" ::"r"(zero), "a"(1), "d"(0) : "memory");
#else
	AT(fault_here, UNDEFINED);
#endif
}

int main(void)
{
	divide(is_readable((int *)0x30));
	return 0;
}
