/* SPDX-License-Identifier: MIT */
/*
 * Writes one byte behind a buffer, where an allocator has marked a page as a guard (MADV_GUARD_INSTALL, from Linux 6.13 on). The mapping is
 * none of its own.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: page_fault.access write
 * expect: vma.permissions rw-p
 * expect: diagnosis.kind guard_page_overrun
 * expect: diagnosis.confidence likely
 * expect: frames fill main
 */
#include "truth.h"

#include <sys/mman.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

__attribute__((noinline)) static void fill(volatile char *bytes, long count)
{
	for (long i = 0; i < count; i++)
		bytes[i] = 1;
}

int main(void)
{
	/* Between pages of another kind, so that no other mapping is merged with it. */
	char *area = mmap(NULL, 5 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *buffer = area + PAGE;

	mprotect(buffer, 3 * PAGE, PROT_READ | PROT_WRITE);
	if (madvise(buffer + PAGE, PAGE, MADV_GUARD_INSTALL))
		return 3;
	truth_address("fault_address", buffer + PAGE);
	fill(buffer, PAGE + 1);
	return 0;
}
