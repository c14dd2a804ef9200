/* SPDX-License-Identifier: MIT */
/*
 * Reads through a non-canonical pointer: the processor raises a general protection fault and doesn't report which address it
 * was.
 *
 * only on x86_64: arm64 has no such addresses
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: code_number 128
 * expect: fault_type general_protection
 * expect: fault_address null
 * expect: page_fault null
 * expect: vma null
 * expect: registers.rdi 0xdead000000000000
 * expect: diagnosis.kind non_canonical_pointer
 * expect: frames read_at main
 */
#include "truth.h"

DECLARE_AT(fault_here);

__attribute__((noinline)) static void read_at(unsigned long address)
{
	TRUTH_AT(fault_here);
	AT(fault_here, "movq (%0), %%rax" ::"D"(address) : "rax");
}

int main(void)
{
	read_at(0xdead000000000000UL);
	return 0;
}
