/* SPDX-License-Identifier: MIT */
/*
 * Ends by `hlt`, an instruction that only the kernel may execute: musl's libc does so where a check of it fails, and so does a program that
 * contains it. Linked with musl or with glibc.
 *
 *   halts WAY
 *
 *   overrun  a block of the heap was overrun, which release() finds
 *   foreign  release() of an address that no block has
 *   smash    copy() overruns a buffer on its stack
 *   join     wait_for() joins a thread that was detached
 *   itself   stop() executes it
 *   returns  stop_at_once() is nothing but that and a return
 *   among    check() has five checks that end so, and one of them fails
 *   abort    calls abort(), which halts in process 1 of a pid namespace
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define HALT_UNLESS(condition)                   \
	do {                                     \
		if (!(condition))                \
			__asm__ volatile("hlt"); \
	} while (0)

static char *volatile blocks[2];

__attribute__((noinline)) static void release(void *block)
{
	free(block);
	__asm__ volatile("");
}

__attribute__((noinline)) static void copy(const char *from)
{
	char buffer[16];

	strcpy(buffer, from);
	__asm__ volatile("" : : "r"(buffer) : "memory");
}

static void *run(void *argument)
{
	for (;;)
		pthread_testcancel();
	return argument;
}

__attribute__((noinline)) static void wait_for(pthread_t thread)
{
	pthread_join(thread, NULL);
	__asm__ volatile("");
}

__attribute__((noinline)) static void stop(void)
{
	__asm__ volatile("hlt; nop");
}

__attribute__((naked, noinline)) static void stop_at_once(void)
{
	__asm__("hlt; ret");
}

__attribute__((noinline)) static void check(volatile int *value)
{
	HALT_UNLESS(value[0] != 1);
	HALT_UNLESS(value[1] != 1);
	HALT_UNLESS(value[2] != 1);
	HALT_UNLESS(value[3] != 1);
	HALT_UNLESS(value[4] != 1);
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "";
	int values[5] = {0, 0, 0, 1, 0};
	pthread_t thread;

	if (!strcmp(way, "overrun")) {
		blocks[0] = malloc(24);
		blocks[1] = malloc(24);
		memset(blocks[0], 'x', 60);
		release(blocks[1]);
	} else if (!strcmp(way, "foreign")) {
		release((char *)values + 1);
	} else if (!strcmp(way, "smash")) {
		copy("much longer than the buffer that it is copied to");
	} else if (!strcmp(way, "join")) {
		pthread_create(&thread, NULL, run, NULL);
		pthread_detach(thread);
		wait_for(thread);
	} else if (!strcmp(way, "itself")) {
		stop();
	} else if (!strcmp(way, "returns")) {
		stop_at_once();
	} else if (!strcmp(way, "among")) {
		check(values);
	} else if (!strcmp(way, "abort")) {
		abort();
	}
	return 0;
}
