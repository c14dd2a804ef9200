/* SPDX-License-Identifier: MIT */
/*
 * Divides an integer by zero.
 *
 * only on x86_64: arm64 gives 0
 * expect: exit 136
 * expect: signal SIGFPE
 * expect: code FPE_INTDIV
 * expect: fault_type integer_divide_by_zero
 * expect: page_fault null
 * expect: vma.permissions r-xp
 * expect: diagnosis.kind divide_by_zero
 * expect: frames divide main
 */
#include "truth.h"

DECLARE_AT(fault_here);

__attribute__((noinline)) static void divide(int by)
{
	TRUTH_AT(fault_here);
	truth_address("fault_address", fault_here);
	AT(fault_here, "idivl %0" ::"c"(by), "a"(1), "d"(0));
}

int main(void)
{
	divide(0);
	return 0;
}
