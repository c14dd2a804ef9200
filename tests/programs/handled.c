/* SPDX-License-Identifier: MIT */
/*
 * Recovers from a fault in a handler and lives on, as virtual machines do.
 *
 * flags: --handled
 * expect: exit 0
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x18
 * expect: disposition handled
 * expect: diagnosis.kind null_dereference
 * expect: frames touch main
 */
#include "truth.h"

#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;

DECLARE_AT(fault_here);

static void recover(int signal)
{
	siglongjmp(back, signal);
}

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::"r"(0x18UL) : "memory");
}

int main(void)
{
	struct sigaction action = { .sa_handler = recover };

	sigaction(SIGSEGV, &action, NULL);
	if (sigsetjmp(back, 1) == 0)
		touch();
	return 0;
}
