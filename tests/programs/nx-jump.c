/* SPDX-License-Identifier: MIT */
/*
 * Calls a function in memory that is not executable.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_ACCERR
 * expect: fault_type access_error
 * expect: page_fault.error_code 21
 * expect: page_fault.access execute
 * expect: vma.permissions rw-p
 * expect: vma.mapping_name null
 * expect: diagnosis.kind execute_non_executable
 * expect: frames ? call main
 */
#include "truth.h"

#include <sys/mman.h>

__attribute__((noinline)) static void call(void (*function)(void))
{
	function();
}

int main(void)
{
	/* A page of another kind lies on either side, or the kernel would merge the mapping with its neighbours. */
	char *area = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *page = area + PAGE;

	mprotect(page, PAGE, PROT_READ | PROT_WRITE);
	page[0] = (char)0xc3;
	truth_address("fault_address", page);
	truth_address("instruction_pointer", page);
	truth_address("vma.start", page);
	truth_address("vma.end", page + PAGE);
	call((void (*)(void))page);
	return 0;
}
