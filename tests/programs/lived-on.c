/* SPDX-License-Identifier: MIT */
/*
 * Recovers from faults and lives on, and later aborts for another reason, or exits if it has an argument: the faults are the
 * cause of neither. The last fault's signal frame still lies in a buffer that nobody has filled.
 *
 * expect: exit 134
 * expect: signal SIGABRT
 * expect: code SI_TKILL
 * expect: fault_type null
 * expect: fault_address null
 * expect: disposition fatal
 * expect: ended_by null
 * expect: earlier_fault.signal SIGSEGV
 * expect: earlier_fault.code SEGV_MAPERR
 * expect: earlier_fault.fault_address 0x18
 * expect: earlier_fault.confidence certain
 * expect: diagnosis.kind abort
 */
#include "truth.h"

#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;

static void recover(int signal)
{
	siglongjmp(back, signal);
}

__attribute__((noinline)) static void touch(void)
{
	__asm__ volatile(STORE_INT ::"r"(0x18UL) : "memory");
}

/* Deep in the stack, where the handler's frame was. */
__attribute__((noinline)) static void end(int exits)
{
	char local[8192];

	local[0] = (char)exits;
	__asm__ volatile("" ::"r"(local) : "memory");
	if (exits)
		_exit(local[0]);
	abort();
}

int main(int count, char **arguments)
{
	struct sigaction action = { .sa_handler = recover };

	sigaction(SIGSEGV, &action, NULL);
	for (volatile int i = 0; i < 100; i++) {
		if (sigsetjmp(back, 1) == 0)
			touch();
	}
	end(count > 1 ? atoi(arguments[1]) : 0);
	return 0;
}
