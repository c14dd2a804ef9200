/* SPDX-License-Identifier: MIT */
/*
 * Has a child whose exit signal is SIGSEGV, blocks it, waits for the child, and lets the signal in: the kernel's notice has the code CLD_EXITED,
 * whose number is that of SEGV_MAPERR. There was no fault, no process has sent anything, and there is no child any more.
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
#define _GNU_SOURCE
#include "truth.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t all;
	pid_t child;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	child = syscall(SYS_clone, SIGSEGV, 0, 0, 0, 0);
	if (child == 0)
		_exit(0);
	if (child < 0 || waitpid(child, NULL, __WALL) != child)
		return 1;
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	return 1;
}
