/* SPDX-License-Identifier: MIT */
/*
 * A signal whose handler is to run on an alternate stack that was unmapped: the kernel finds no memory for the frame there, and
 * ends the process by a SIGSEGV without an address. The stack of the thread has room: this is no stack overflow.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: fault_type kernel
 * expect: fault_address null
 * expect: page_fault null
 * expect: disposition fatal
 * expect: diagnosis null
 */
#include "truth.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static void handle(int signal)
{
	(void)signal;
}

int main(void)
{
	const size_t bytes = 16 * PAGE;
	struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
	stack_t stack = {.ss_size = bytes};

	stack.ss_sp = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &action, NULL))
		return 1;
	munmap(stack.ss_sp, bytes);
	syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
	return 0;
}
