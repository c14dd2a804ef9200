/* SPDX-License-Identifier: MIT */
/*
 * Dies 2000 calls deep: the record has the innermost and the outermost part of the stack.
 *
 * build: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls
 * flags: --stack-bytes 262144
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x18
 * expect: disposition fatal
 * expect: diagnosis.kind null_dereference
 * expect: unwinder eh_frame
 * expect: stack_complete true
 * expect: stack_omitted.before 12
 * expect: frames recurse recurse recurse recurse recurse recurse recurse recurse recurse recurse recurse recurse main
 */
#include "truth.h"

__attribute__((noinline, noclone)) static int recurse(volatile int *depth)
{
	if (--*depth == 0)
		*(volatile int *)0x18 = 1;
	return recurse(depth) + 1;
}

int main(void)
{
	volatile int depth = 2000;

	return recurse(&depth);
}
