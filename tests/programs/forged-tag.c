/* SPDX-License-Identifier: MIT */
/*
 * Sends itself a SIGSEGV that claims to be of a wrong tag (MTE), which the thread has never asked to be checked.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MTEAERR
 * expect: fault_type null
 * expect: fault_address null
 * expect: page_fault null
 * expect: vma null
 * expect: diagnosis null
 * only on arm64: memory has no tags elsewhere
 */
#include "truth.h"

#include <signal.h>
#include <sys/syscall.h>

int main(void)
{
	siginfo_t info = {.si_signo = SIGSEGV, .si_code = 8 /* SEGV_MTEAERR */};

	truth_number("sender.pid", getpid());
	syscall(SYS_rt_sigqueueinfo, getpid(), SIGSEGV, &info);
	return 0;
}
