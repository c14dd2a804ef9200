/* SPDX-License-Identifier: MIT */
/*
 * Restores the default action in the handler of a fault and returns: the same fault comes again and ends the process.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x18
 * expect: disposition fatal
 * expect: ended_by null
 * expect: diagnosis.kind null_dereference
 * expect: frames touch main
 */
#include "truth.h"

#include <signal.h>

DECLARE_AT(fault_here);

static void restore(int number)
{
	signal(number, SIG_DFL);
}

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::"r"(0x18UL) : "memory");
}

int main(void)
{
	signal(SIGSEGV, restore);
	touch();
	return 0;
}
