/* SPDX-License-Identifier: MIT */
/*
 * A frame of the main thread is larger than its stack may be: the callers are above, in the part that is mapped.
 *
 * build: -O2 -fomit-frame-pointer -fno-stack-clash-protection
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: disposition fatal
 * expect: vma null
 * expect: diagnosis.kind stack_overflow
 * expect: diagnosis.confidence certain
 * expect: stack_complete true
 * expect: frames statistics deeper main
 */
#include "truth.h"

static volatile int sink;

__attribute__((noinline)) static void statistics(int number)
{
	volatile char table[48 << 20];

	table[0] = (char)number;
	sink = table[0] + getpid();
}

__attribute__((noinline)) static int deeper(int number)
{
	volatile char used[20000];

	memset((char *)used, number, sizeof(used));
	statistics(number);
	return used[number];
}

int main(int count, char **arguments)
{
	(void)arguments;
	return deeper(count) + 1;
}
