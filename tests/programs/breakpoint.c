/* SPDX-License-Identifier: MIT */
/*
 * Executes a breakpoint without a debugger. The instruction pointer is already behind the instruction, but on arm64.
 *
 * expect: exit 133
 * expect: signal SIGTRAP
 * expect: code SI_KERNEL
 * expect: fault_type breakpoint
 * expect: fault_address null
 * expect: page_fault null
 * expect: diagnosis.kind breakpoint
 * expect: frames trap main
 * on arm64: code TRAP_BRKPT
 * on arm64: fault_address any
 * on arm64, because: the kernel has a code of its own for a breakpoint, with its address
 */
#include "truth.h"

DECLARE_AT(before_trap);
DECLARE_AT(after_trap);

__attribute__((noinline)) static void trap(void)
{
#ifdef __x86_64__
	TRUTH_AT(after_trap);
#else
	TRUTH_AT(before_trap);
#endif
	AT(before_trap, BREAKPOINT);
	AT(after_trap, "nop");
}

int main(void)
{
	trap();
	return 0;
}
