/* SPDX-License-Identifier: MIT */
/*
 * Returns from a handler that was never called, with a stack pointer in a page that nobody may access, below memory that is
 * writable: rt_sigreturn(2) cannot read the frame, and the kernel ends the process by a SIGSEGV without an address. All but the
 * number of the call is as if a signal's frame had found no room, and yet no stack has overflowed. On arm64 the signal has an address and the
 * code of a fault, but there was none.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: fault_type kernel
 * expect: fault_address null
 * expect: page_fault null
 * expect: disposition fatal
 * expect: diagnosis null
 * on arm64: code SEGV_ACCERR
 * on arm64: fault_type null
 * on arm64, because: the kernel sends another code
 */
#include "truth.h"

#include <sys/mman.h>
#include <sys/syscall.h>

int main(void)
{
	char *guard = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (guard == MAP_FAILED || mprotect(guard, PAGE, PROT_NONE))
		return 1;
#ifdef __x86_64__
	__asm__ volatile("mov %0, %%rsp\n\tsyscall\n\tud2" ::"r"(guard + PAGE - 256), "a"(SYS_rt_sigreturn)
			 : "rcx", "r11", "memory");
#else
	__asm__ volatile("mov sp, %0\n\tmov x8, %1\n\tsvc #0\n\tudf #0" ::"r"(guard + PAGE - 256), "r"((long)SYS_rt_sigreturn)
			 : "x8", "memory");
#endif
	return 0;
}
