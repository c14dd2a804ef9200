/* SPDX-License-Identifier: MIT */
/*
 * Aborts in the handler of a fault. On the handler's stack stand the stack pointer and the instruction pointer of the fault side by side, as in the
 * signal frame, and nothing else of it: an unwinder that is on its way through the frame has them so.
 *
 * expect: exit 134
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x18
 * expect: page_fault.error_code 6
 * expect: registers.rdi 0x18
 * expect: disposition caught
 * expect: ended_by.signal SIGABRT
 * expect: sender null
 * expect: diagnosis.kind null_dereference
 * expect: frames touch main
 */
#include "truth.h"

#include <signal.h>
#include <ucontext.h>

DECLARE_AT(fault_here);

static void give_up(int signal, siginfo_t *info, void *context)
{
	const mcontext_t *registers = &((ucontext_t *)context)->uc_mcontext;
	volatile unsigned long around[64] = {0};

	(void)signal;
	(void)info;
#ifdef __x86_64__
	around[31] = (unsigned long)registers->gregs[REG_RSP];
	around[32] = (unsigned long)registers->gregs[REG_RIP];
#else
	around[31] = registers->sp;
	around[32] = registers->pc;
#endif
	if (around[31])
		abort();
}

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::IN_FIRST(0x18UL) : "memory");
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = give_up, .sa_flags = SA_SIGINFO};

	sigaction(SIGSEGV, &action, NULL);
	touch();
	return 0;
}
