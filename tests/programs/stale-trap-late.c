/* SPDX-License-Identifier: MIT */
/*
 * As stale-trap, but the thread computes when the signal comes: the kernel was entered by an interrupt, which looks like a trap. As the
 * frame finds no room, there may have been no trap, so that the record says neither.
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

static volatile int is_ready;

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
	__asm__ volatile("mov %0, %%rsp\n\tmovl $1, (%1)\n1:\tpause\n\tjmp 1b" ::"r"((char *)stack + 256),
			 "r"(&is_ready), "c"(0)
			 : "memory");
	return unused;
}

int main(void)
{
	pthread_t thread;

	signal(SIGUSR1, handle);
	signal(SIGSEGV, recover);
	pthread_create(&thread, NULL, run, NULL);
	while (!is_ready)
		;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	return 0;
}
