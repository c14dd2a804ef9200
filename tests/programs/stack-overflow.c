/* SPDX-License-Identifier: MIT */
/*
 * Recurses until the main thread's stack is used up: 128 KiB, set here.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: page_fault.access write
 * expect: vma null
 * expect: vma_above.mapping_name [stack]
 * expect: vma_above.permissions rw-p
 * expect: diagnosis.kind stack_overflow
 * expect: frames recurse recurse recurse recurse
 */
#include "truth.h"

#include <sys/resource.h>

__attribute__((noinline)) static long recurse(long depth)
{
	char local[256];

	memset(local, (int)depth, sizeof(local));
	return recurse(depth + 1) + local[depth % 256];
}

int main(void)
{
	struct rlimit limit = { 128 * 1024, 128 * 1024 };

	setrlimit(RLIMIT_STACK, &limit);
	return (int)recurse(0);
}
