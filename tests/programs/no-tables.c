/* SPDX-License-Identifier: MIT */
/*
 * Faults in code without call frame information and frame pointers, while the frame pointer happens to point to words that are 0: its callers are not known,
 * and the stack is not complete.
 *
 * build: -g0 -O1 -fomit-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_address 0x18
 * expect: disposition fatal
 * expect: stack_complete false
 */
#include "truth.h"

__attribute__((noinline)) static void touch(const void *frame)
{
#ifdef __x86_64__
	__asm__ volatile("mov %0, %%rbp\n\tmovl $1, (%1)" ::"r"(frame), "r"(0x18UL) : "memory");
#else
	__asm__ volatile("mov x29, %0\n\tstr wzr, [%1]" ::"r"(frame), "r"(0x18UL) : "memory");
#endif
}

int main(void)
{
	/* Above the stack pointer, as a caller's frame is. */
	volatile unsigned long zeros[64];

	for (int i = 0; i < 64; i++)
		zeros[i] = 0;
	touch((const void *)(zeros + 32));
	return (int)zeros[0];
}
