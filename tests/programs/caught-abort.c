/* SPDX-License-Identifier: MIT */
/*
 * Aborts in the handler of a fault, on an alternate stack, as language runtimes do: the record is that of the fault.
 *
 * expect: exit 134
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x18
 * expect: page_fault.error_code 6
 * expect: page_fault.access write
 * expect: registers.rdi 0x18
 * expect: registers.rsi 0x1122334455667788
 * expect: disposition caught
 * expect: ended_by.signal SIGABRT
 * expect: ended_by.code SI_TKILL
 * expect: ended_by.exit_code null
 * expect: sender null
 * expect: diagnosis.kind null_dereference
 * expect: frames touch main
 */
#include "truth.h"

#include <signal.h>

DECLARE_AT(fault_here);

static void give_up(int signal)
{
	char report[20000]; /* handlers print reports, and use large buffers */

	snprintf(report, sizeof(report), "signal %d\n", signal);
	if (report[0])
		abort();
}

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::IN_FIRST(0x18UL), IN_SECOND(0x1122334455667788UL) : "memory");
}

int main(void)
{
	static char area[64 * 1024];
	stack_t stack = { .ss_sp = area, .ss_size = sizeof(area) };
	struct sigaction action = { .sa_handler = give_up, .sa_flags = SA_ONSTACK };

	sigaltstack(&stack, NULL);
	sigaction(SIGSEGV, &action, NULL);
	touch();
	return 0;
}
