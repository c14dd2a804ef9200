/* SPDX-License-Identifier: MIT */
/*
 * Dies in libc, called by functions without frame pointers: the callers are found all the same.
 *
 * build: -O2 -fomit-frame-pointer
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x1000
 * expect: page_fault.access read
 * expect: disposition fatal
 * expect: diagnosis.kind null_dereference
 * expect: unwinder eh_frame
 * expect: stack_complete true
 */
#include "truth.h"

__attribute__((noinline)) static int copy(char *to, const char *from, size_t length)
{
	memcpy(to, from, length);
	return to[0] + 1;
}

__attribute__((noinline)) static int copy_all(const char *from, size_t length)
{
	char *buffer = malloc(length);

	return copy(buffer, from, length) + copy(buffer, from + 1, length) + 1;
}

int main(int count, char **arguments)
{
	(void)arguments;
	return copy_all((const char *)0x1000, 100 + (size_t)count) + 1;
}
