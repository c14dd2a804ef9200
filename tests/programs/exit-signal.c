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
#define _GNU_SOURCE
#include "truth.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t all;
	siginfo_t info;
	pid_t child;

	/* It comes when it is let in, and not wherever this is when the child has ended. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	child = syscall(SYS_clone, SIGSEGV, 0, 0, 0, 0);
	if (child == 0)
		_exit(0);
	if (child < 0 || waitid(P_PID, child, &info, WEXITED | WNOWAIT | __WALL))
		return 1;
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	return 1;
}
