/* SPDX-License-Identifier: MIT */
/*
 * A thread's frame is larger than what is left of its stack, and reaches beyond the guard page, to where nothing is mapped.
 *
 * build: -fno-stack-clash-protection
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: disposition fatal
 * expect: thread_name player
 * expect: vma null
 * expect: diagnosis.kind stack_overflow
 * expect: diagnosis.confidence certain
 * expect: stack_complete true
 * expect: frames statistics player
 */
#include "truth.h"

#include <pthread.h>
#include <sys/mman.h>

#define STACK  (128 * 1024UL)
#define AROUND (64UL << 20)

static volatile int sink;

__attribute__((noinline)) static void statistics(int number)
{
	volatile char table[1 << 20];

	table[0] = (char)number;
	sink = table[0] + getpid();
}

static void *player(void *nothing)
{
	pthread_setname_np(pthread_self(), "player");
	truth_number("tid", gettid());
	statistics(3);
	return nothing;
}

int main(void)
{
	/* As in a young process: below the guard page is nothing. */
	char *area = mmap(NULL, AROUND, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *stack = area + AROUND / 2;
	pthread_attr_t attributes;
	pthread_t thread;

	munmap(area, AROUND / 2 - PAGE);
	mprotect(stack, STACK, PROT_READ | PROT_WRITE);
	munmap(stack + STACK, AROUND / 2 - STACK);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, STACK);
	pthread_create(&thread, &attributes, player, NULL);
	pthread_join(thread, NULL);
	return 0;
}
