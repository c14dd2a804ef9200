/* SPDX-License-Identifier: MIT */
/*
 * Has a child whose exit signal is SIGSEGV, and dies of it: the kernel's notice has the code CLD_EXITED, whose number is that of SEGV_MAPERR,
 * and the child's number where a fault has its address. There was no fault, and no process has sent anything.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code_number 1
 * expect: fault_type null
 * expect: fault_address null
 * expect: page_fault null
 * expect: sender null
 * expect: disposition fatal
 * expect: diagnosis null
 */
#include "truth.h"

#include <signal.h>
#include <sys/syscall.h>

int main(void)
{
	if (syscall(SYS_clone, SIGSEGV, 0, 0, 0, 0) == 0)
		_exit(0);
	for (;;)
		pause();
}
