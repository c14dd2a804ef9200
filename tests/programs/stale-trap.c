/* SPDX-License-Identifier: MIT */
/*
 * A thread recovers from a general protection fault. Later, near the end of its stack, it sends itself a signal whose frame finds
 * no room: the kernel ends the process by a SIGSEGV that comes without a trap, and remembers that fault as the thread's last one.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: fault_type kernel
 * expect: fault_address null
 * expect: page_fault null
 * expect: disposition fatal
 * expect: diagnosis.kind stack_overflow
 */
#include "truth.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>

static sigjmp_buf back;

static void recover(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

static void handle(int signal)
{
	(void)signal;
}

static void *run(void *unused)
{
	void *stack;
	size_t size;
	pthread_attr_t attributes;

	if (!sigsetjmp(back, 1))
		*(volatile char *)0xdead000000000000UL = 1;
	signal(SIGSEGV, SIG_DFL);
	pthread_getattr_np(pthread_self(), &attributes);
	pthread_attr_getstack(&attributes, &stack, &size);
	__asm__ volatile("mov %0, %%rsp\n\tsyscall\n\tud2" ::"r"((char *)stack + 256), "a"(SYS_tgkill), "D"(getpid()),
			 "S"(gettid()), "d"(SIGUSR1)
			 : "rcx", "r11", "memory");
	return unused;
}

int main(void)
{
	pthread_t thread;

	signal(SIGUSR1, handle);
	signal(SIGSEGV, recover);
	pthread_create(&thread, NULL, run, NULL);
	pthread_join(thread, NULL);
	return 0;
}
