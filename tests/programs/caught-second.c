/* SPDX-License-Identifier: MIT */
/*
 * Faults in the handler of a fault, which the default action ends: the record is that of the first fault, and says where the second one was.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x18
 * expect: disposition caught
 * expect: ended_by.signal SIGSEGV
 * expect: ended_by.code SEGV_MAPERR
 * expect: ended_by.exit_code null
 * expect: ended_by.fault_address 0x28
 * expect: earlier_fault null
 * expect: diagnosis.kind null_dereference
 * expect: frames touch main
 */
#include "truth.h"

#include <signal.h>

DECLARE_AT(fault_here);
DECLARE_AT(second_here);

__attribute__((noinline)) static void report(void)
{
	truth_address("ended_by.instruction_pointer", second_here);
	AT(second_here, STORE_INT ::IN_FIRST(0x28UL) : "memory");
}

static void handle(int signal)
{
	(void)signal;
	report();
}

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::IN_FIRST(0x18UL) : "memory");
}

int main(void)
{
	signal(SIGSEGV, handle);
	touch();
	return 0;
}
