/* SPDX-License-Identifier: MIT */
/*
 * Executes int3 without a debugger. The instruction pointer is already behind the instruction.
 *
 * expect: exit 133
 * expect: signal SIGTRAP
 * expect: code SI_KERNEL
 * expect: fault_type breakpoint
 * expect: fault_address null
 * expect: page_fault null
 * expect: diagnosis.kind breakpoint
 * expect: frames trap main
 */
#include "truth.h"

DECLARE_AT(after_trap);

__attribute__((noinline)) static void trap(void)
{
	TRUTH_AT(after_trap);
	__asm__ volatile(BREAKPOINT);
	AT(after_trap, "nop");
}

int main(void)
{
	trap();
	return 0;
}
