/* SPDX-License-Identifier: MIT */
/*
 * Writes one byte behind a buffer, where an allocator has marked a page as a guard (MADV_GUARD_INSTALL, from Linux 6.13 on). The mapping is
 * none of its own. With the argument `far` it writes far behind the buffer, into the second page of such a guard.
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

int main(int argc, char **argv)
{
	/* Between pages of another kind, so that no other mapping is merged with it. */
	char *area = mmap(NULL, 5 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *buffer = area + PAGE;

	mprotect(buffer, 3 * PAGE, PROT_READ | PROT_WRITE);
	if (madvise(buffer + PAGE, argc > 1 ? 2 * PAGE : PAGE, MADV_GUARD_INSTALL))
		return 3;
	if (argc > 1) {
		fill(buffer + 3 * PAGE - 1, argv[1][0] == 'f');
		return 0;
	}
	truth_address("fault_address", buffer + PAGE);
	fill(buffer, PAGE + 1);
	return 0;
}
