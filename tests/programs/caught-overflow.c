/* SPDX-License-Identifier: MIT */
/*
 * Recurses until the stack is used up, with a handler that needs some stack: the kernel can't call the handler and ends the
 * process by another SIGSEGV, which has no address.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: page_fault.access write
 * expect: disposition caught
 * expect: ended_by.signal SIGSEGV
 * expect: ended_by.code SI_KERNEL
 * expect: vma_above.mapping_name [stack]
 * expect: diagnosis.kind stack_overflow
 * expect: frames recurse recurse recurse recurse
 */
#include "truth.h"

#include <signal.h>
#include <sys/resource.h>

static void handle(int signal)
{
	_exit(signal);
}

__attribute__((noinline)) static long recurse(long depth)
{
	char local[256];

	memset(local, (int)depth, sizeof(local));
	return recurse(depth + 1) + local[depth % 256];
}

int main(void)
{
	struct rlimit limit = { .rlim_cur = 128 * 1024, .rlim_max = 128 * 1024 };

	setrlimit(RLIMIT_STACK, &limit);
	signal(SIGSEGV, handle);
	return (int)recurse(0);
}
