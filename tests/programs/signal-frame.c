/* SPDX-License-Identifier: MIT */
/*
 * A thread that has never faulted sends itself a signal 256 bytes above the end of its stack, where the handler's frame finds no
 * room: the kernel ends the process by a SIGSEGV without an address. Nothing has touched the guard page.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_KERNEL
 * expect: fault_type kernel
 * expect: fault_address null
 * expect: page_fault null
 * expect: disposition fatal
 * expect: diagnosis.kind stack_overflow
 * expect: diagnosis.confidence likely
 */
#include "truth.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

static void handle(int signal)
{
	(void)signal;
}

static void *run(void *unused)
{
	void *stack;
	size_t size;
	pthread_attr_t attributes;

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
	pthread_create(&thread, NULL, run, NULL);
	pthread_join(thread, NULL);
	return 0;
}
