/* SPDX-License-Identifier: MIT */
/*
 * One of eight threads writes to address 0x18. The other seven are killed because of it, and are no crashes of their own.
 *
 * flags: --signal SEGV --signal KILL
 * expect: exit 139
 * expect: records 1
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_address 0x18
 * expect: comm one-of-eight-th
 * expect: thread_name worker-5
 * expect: diagnosis.kind null_dereference
 * expect: frames touch worker
 */
#include "truth.h"

#include <pthread.h>

static pthread_barrier_t all_there;

DECLARE_AT(fault_here);

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::"r"(0x18UL) : "memory");
}

static void *worker(void *number)
{
	char name[16];

	snprintf(name, sizeof(name), "worker-%ld", (long)number);
	pthread_setname_np(pthread_self(), name);
	pthread_barrier_wait(&all_there);
	if ((long)number != 5)
		for (;;)
			pause();
	truth_number("pid", getpid());
	truth_number("tid", gettid());
	touch();
	return NULL;
}

int main(void)
{
	pthread_t ids[8];

	pthread_barrier_init(&all_there, NULL, 8);
	for (long i = 0; i < 8; i++)
		pthread_create(&ids[i], NULL, worker, (void *)i);
	pthread_join(ids[5], NULL);
	return 0;
}
