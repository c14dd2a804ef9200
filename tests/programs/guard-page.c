/* SPDX-License-Identifier: MIT */
/*
 * Writes one byte behind a buffer, where a guard page lies.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_ACCERR
 * expect: fault_type access_error
 * expect: page_fault.error_code 6
 * expect: page_fault.access write
 * expect: vma.permissions ---p
 * expect: vma.mapping_name null
 * expect: diagnosis.kind guard_page_overrun
 * expect: frames overrun main
 */
#include "truth.h"

#include <sys/mman.h>

DECLARE_AT(fault_here);

__attribute__((noinline)) static void overrun(char *end)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_BYTE ::"r"(end) : "memory");
}

int main(void)
{
	char *area = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *guard = area + PAGE;

	mprotect(guard, PAGE, PROT_NONE);
	truth_address("fault_address", guard);
	truth_address("vma.start", guard);
	truth_address("vma.end", guard + PAGE);
	overrun(guard);
	return 0;
}
