/* SPDX-License-Identifier: MIT */
/*
 * Sends itself a SIGSEGV that claims to be a fault: there was no fault, and there is no address.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type null
 * expect: fault_address null
 * expect: page_fault null
 * expect: vma null
 * expect: disposition fatal
 * expect: diagnosis null
 */
#include "truth.h"

#include <signal.h>
#include <sys/syscall.h>

int main(void)
{
	siginfo_t info = { .si_signo = SIGSEGV, .si_code = SEGV_MAPERR, .si_addr = (void *)0x1234 };

	truth_number("sender.pid", getpid());
	truth_text("sender.comm", "forged");
	syscall(SYS_rt_sigqueueinfo, getpid(), SIGSEGV, &info);
	return 0;
}
