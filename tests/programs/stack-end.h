/* SPDX-License-Identifier: MIT */
/* A thread that gets SIGUSR1 where its stack ends, so that the frame of the handler finds no room. Include truth.h first. */
#ifndef STACK_END_H
#define STACK_END_H

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

static void handle(int signal)
{
	(void)signal;
}

/* The lowest address of this thread's stack. Below it lies the guard page. */
static inline char *stack_end(void)
{
	void *stack;
	size_t size;
	pthread_attr_t attributes;

	pthread_getattr_np(pthread_self(), &attributes);
	pthread_attr_getstack(&attributes, &stack, &size);
	return stack;
}

/* Sends this thread the signal while its stack pointer is there. */
static inline void signal_at(char *stack_pointer)
{
#ifdef __x86_64__
	__asm__ volatile("mov %0, %%rsp\n\tsyscall\n\tud2" ::"r"(stack_pointer), "a"(SYS_tgkill), "D"(getpid()), "S"(gettid()),
			 "d"(SIGUSR1)
			 : "rcx", "r11", "memory");
#else
	/* Before a register is taken for one. */
	long pid = getpid(), tid = gettid();
	register long process __asm__("x0") = pid, thread __asm__("x1") = tid, signal __asm__("x2") = SIGUSR1;
	register long call __asm__("x8") = SYS_tgkill;

	__asm__ volatile("mov sp, %0\n\tsvc #0\n\tudf #0" ::"r"(stack_pointer), "r"(process), "r"(thread), "r"(signal), "r"(call)
			 : "memory");
#endif
}

/* Starts the thread. */
static inline pthread_t start(void *(*run)(void *))
{
	pthread_t thread;

	signal(SIGUSR1, handle);
	pthread_create(&thread, NULL, run, NULL);
	return thread;
}

#endif
