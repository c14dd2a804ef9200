/* SPDX-License-Identifier: MIT */
/*
 * A thread recovers from a fault and sleeps over its signal frame, or sleeps in its handler where there is an argument; another one calls
 * exit(). Neither is a death by the fault.
 *
 * build: -O1
 */
#include "truth.h"

#include <pthread.h>
#include <signal.h>

#include "recover.h"

static pthread_barrier_t asleep;
static int stays;

static void handle(int signal)
{
	if (stays) {
		pthread_barrier_wait(&asleep);
		pause();
	}
	recover(signal);
}

__attribute__((noinline)) static void sleep_here(void)
{
	char local[8192];

	local[0] = 1;
	__asm__ volatile("" ::"r"(local) : "memory");
	pthread_barrier_wait(&asleep);
	pause();
	__asm__ volatile("" ::"r"(local) : "memory");
}

static void *run(void *nothing)
{
	if (!sigsetjmp(back, 1))
		*(volatile int *)0x18 = 1;
	sleep_here();
	return nothing;
}

int main(int count, char **arguments)
{
	pthread_t thread;

	(void)arguments;
	stays = count > 1;
	signal(SIGSEGV, handle);
	pthread_barrier_init(&asleep, NULL, 2);
	pthread_create(&thread, NULL, run, NULL);
	pthread_barrier_wait(&asleep);
	exit(3);
}
