/* SPDX-License-Identifier: MIT */
/*
 * Writes through a bad pointer to below its stack's guard page, from a function with a small frame: no stack is used up.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: disposition fatal
 * expect: diagnosis null
 * expect: frames touch run
 */
#include "truth.h"

#include <pthread.h>
#include <sys/mman.h>

#define STACK  (128 * 1024UL)
#define AROUND (64UL << 20)

static char *bad;

__attribute__((noinline)) static void touch(char *where)
{
	__asm__ volatile(STORE_BYTE ::"r"(where) : "memory");
}

static void *run(void *nothing)
{
	touch(bad);
	return nothing;
}

int main(void)
{
	char *area = mmap(NULL, AROUND, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *stack = area + AROUND / 2;
	pthread_attr_t attributes;
	pthread_t thread;

	munmap(area, AROUND / 2 - PAGE);
	mprotect(stack, STACK, PROT_READ | PROT_WRITE);
	bad = stack - (1 << 20);
	truth_address("fault_address", bad);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, STACK);
	pthread_create(&thread, &attributes, run, NULL);
	pthread_join(thread, NULL);
	return 0;
}
