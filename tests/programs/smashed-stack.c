/* SPDX-License-Identifier: MIT */
/*
 * Writes over the canary of its own stack frame: the compiler's check calls abort() by way of __stack_chk_fail().
 *
 * build: -fstack-protector-strong
 * expect: exit 134
 * expect: signal SIGABRT
 * expect: code SI_TKILL
 * expect: fault_type null
 * expect: sender.comm smashed-stack
 * expect: abort_message *** stack smashing detected ***: terminated
 * expect: diagnosis.kind smashed_stack
 */
#include "truth.h"

__attribute__((noinline)) static void smash(volatile char *from, long length)
{
	char buffer[16];
	volatile char *to = buffer;

	for (long i = 0; i < length; i++)
		to[i] = from[i];
}

int main(void)
{
	char zeros[32] = { 0 };

	truth_number("sender.pid", getpid());
	smash(zeros, sizeof(zeros));
	return 0;
}
