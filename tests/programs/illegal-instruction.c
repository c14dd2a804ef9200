/* SPDX-License-Identifier: MIT */
/*
 * Executes ud2, which compilers put where code must not be reached.
 *
 * expect: exit 132
 * expect: signal SIGILL
 * expect: code ILL_ILLOPN
 * expect: fault_type illegal_operand
 * expect: page_fault null
 * expect: diagnosis.kind trap_instruction
 * expect: frames unreachable main
 * on arm64: code ILL_ILLOPC
 * on arm64: fault_type illegal_opcode
 * on arm64: diagnosis.kind illegal_instruction
 * on arm64, because: the kernel has another code, also for what is no instruction
 */
#include "truth.h"

DECLARE_AT(fault_here);

__attribute__((noinline)) static void unreachable(void)
{
	TRUTH_AT(fault_here);
	truth_address("fault_address", fault_here);
	AT(fault_here, UNDEFINED);
}

int main(void)
{
	unreachable();
	return 0;
}
