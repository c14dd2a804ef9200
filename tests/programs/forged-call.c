/* SPDX-License-Identifier: MIT */
/*
 * Sends itself a SIGSYS that claims to be seccomp's: no filter has refused a call, and there is none.
 *
 * expect: exit 159
 * expect: signal SIGSYS
 * expect: code SYS_SECCOMP
 * expect: fault_type null
 * expect: fault_address null
 * expect: disposition fatal
 * expect: diagnosis null
 */
#include "truth.h"

#include <signal.h>
#include <sys/syscall.h>

int main(void)
{
	siginfo_t info = {.si_signo = SIGSYS, .si_code = 1, .si_addr = (void *)main};

	truth_number("sender.pid", getpid());
	truth_text("sender.comm", "forged-call");
	syscall(SYS_rt_sigqueueinfo, getpid(), SIGSYS, &info);
	return 0;
}
