/* SPDX-License-Identifier: MIT */
/*
 * Calls into the middle of an instruction.
 *
 * expect: exit 135
 * expect: signal SIGBUS
 * expect: code BUS_ADRALN
 * expect: fault_type alignment_error
 * expect: page_fault null
 * expect: diagnosis.kind jump_into_the_wild
 * expect: diagnosis.confidence certain
 * expect: frames target call main
 * only on arm64: instructions begin anywhere elsewhere
 */
#include "truth.h"

__attribute__((noinline)) static void target(void)
{
	__asm__ volatile("");
}

__attribute__((noinline)) static void call(void (*pointer)(void))
{
	pointer();
	__asm__ volatile("");
}

int main(void)
{
	char *at = (char *)target + 2;

	truth_address("fault_address", at);
	truth_address("instruction_pointer", at);
	call((void (*)(void))at);
	return 0;
}
