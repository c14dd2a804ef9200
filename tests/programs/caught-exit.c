/* SPDX-License-Identifier: MIT */
/*
 * Exits from the handler of a fault: not a signal but the fault is why it ends.
 *
 * expect: exit 7
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x18
 * expect: registers.rdi 0x18
 * expect: disposition caught
 * expect: ended_by.signal null
 * expect: ended_by.code null
 * expect: ended_by.exit_code 7
 * expect: sender null
 * expect: diagnosis.kind null_dereference
 * expect: frames touch main
 */
#include "truth.h"

#include <signal.h>

DECLARE_AT(fault_here);

static void leave(int signal)
{
	(void)signal;
	_exit(7);
}

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::IN_FIRST(0x18UL) : "memory");
}

int main(void)
{
	signal(SIGSEGV, leave);
	touch();
	return 0;
}
