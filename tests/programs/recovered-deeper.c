/* SPDX-License-Identifier: MIT */
/*
 * Recovers from a fault, then exits from the handler of another one, deeper in the stack: the record is that of the second fault, though the
 * signal frame of the first one lies above it, in a buffer.
 *
 * expect: exit 7
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_address 0x28
 * expect: disposition caught
 * expect: ended_by.signal null
 * expect: ended_by.exit_code 7
 * expect: ended_by.instruction_pointer null
 * expect: earlier_fault null
 * expect: diagnosis.kind null_dereference
 * expect: frames touch deeper main
 */
#include "truth.h"

#include <signal.h>

#include "recover.h"

static volatile int is_over;

static void handle(int signal)
{
	if (is_over)
		_exit(7);
	recover(signal);
}

__attribute__((noinline)) static void touch(unsigned long where)
{
	__asm__ volatile(STORE_INT ::"r"(where) : "memory");
}

/* Its buffer lies where the frame of the first handler was. */
__attribute__((noinline)) static void deeper(void)
{
	char local[8192];

	local[0] = 1;
	__asm__ volatile("" ::"r"(local) : "memory");
	is_over = 1;
	touch(0x28);
}

int main(void)
{
	signal(SIGSEGV, handle);
	if (!sigsetjmp(back, 1))
		touch(0x18);
	deeper();
	return 0;
}
