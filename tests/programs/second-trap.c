/* SPDX-License-Identifier: MIT */
/*
 * Recovers from a general protection fault, and has a second one, elsewhere, that it doesn't recover from.
 *
 * only on x86_64: arm64 has no general protection fault
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: fault_type general_protection
 * expect: fault_address null
 * expect: page_fault null
 * expect: disposition fatal
 * expect: registers.rdi 0xdead000000000000
 * expect: diagnosis.kind non_canonical_pointer
 * expect: frames read_at main
 */
#include "truth.h"

#include "recover.h"

DECLARE_AT(fault_here);

__attribute__((noinline)) static void read_at(unsigned long address)
{
	AT(fault_here, "movq (%0), %%rax" ::"D"(address) : "rax");
}

int main(void)
{
	TRUTH_AT(fault_here);
	signal(SIGSEGV, recover);
	if (!sigsetjmp(back, 1))
		*(volatile char *)0xbeef000000000000UL = 1;
	signal(SIGSEGV, SIG_DFL);
	read_at(0xdead000000000000UL);
	return 0;
}
