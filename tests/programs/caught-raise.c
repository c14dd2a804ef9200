/* SPDX-License-Identifier: MIT */
/*
 * Restores the default action in the handler of a fault and raises the signal again. The signal is blocked in the handler, so that
 * it is delivered when the handler has returned, with the registers of the fault.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_ACCERR
 * expect: fault_type access_error
 * expect: page_fault.access write
 * expect: vma.permissions r--p
 * expect: disposition caught
 * expect: ended_by.signal SIGSEGV
 * expect: ended_by.code SI_TKILL
 * expect: sender null
 * expect: diagnosis.kind write_to_read_only
 * expect: frames touch main
 */
#include "truth.h"

#include <signal.h>

DECLARE_AT(fault_here);

static const char constant[PAGE] __attribute__((aligned(4096))) = "constant";

static void raise_again(int number)
{
	signal(number, SIG_DFL);
	raise(number);
}

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_BYTE ::"r"(constant) : "memory");
}

int main(void)
{
	/* The kernel need not have mapped the page before: then the fault has another error code. */
	(void)*(const volatile char *)constant;
	signal(SIGSEGV, raise_again);
	touch();
	return 0;
}
