/* SPDX-License-Identifier: MIT */
/*
 * DEATHS processes exit from the handler of a fault, one after another, and while each is in its handler THREADS other threads handle a
 * fault and live on: `caught-beside THREADS DEATHS`.
 *
 * build: -O1
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "truth.h"

static pthread_barrier_t begin, end;
static __thread sigjmp_buf back;
static volatile int over;
static int in_handler, may_leave;

static void recover(int signal)
{
	siglongjmp(back, signal);
}

static void *handle(void *unused)
{
	for (;;) {
		pthread_barrier_wait(&begin);
		if (over)
			return unused;
		if (!sigsetjmp(back, 0))
			*(volatile int *)0x18 = 1;
		pthread_barrier_wait(&end);
	}
}

static void leave(int signal)
{
	char byte = 0;

	write(in_handler, &byte, 1);
	read(may_leave, &byte, 1);
	_exit(signal);
}

__attribute__((noinline)) static void die(void)
{
	signal(SIGSEGV, leave);
	*(volatile int *)0x28 = 1;
}

int main(int argc, char **argv)
{
	long threads = argc > 2 ? atol(argv[1]) : 1, deaths = argc > 2 ? atol(argv[2]) : 1;
	struct sigaction action = { .sa_handler = recover, .sa_flags = SA_NODEFER };
	pthread_attr_t attributes;

	sigaction(SIGSEGV, &action, NULL);
	pthread_barrier_init(&begin, NULL, threads + 1);
	pthread_barrier_init(&end, NULL, threads + 1);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 << 10);
	for (long i = 0; i < threads; i++) {
		pthread_t thread;

		if (pthread_create(&thread, &attributes, handle, NULL))
			return 2;
	}
	for (long i = 0; i < deaths; i++) {
		int ready[2], go[2], status;
		char byte = 0;
		pid_t child;

		if (pipe(ready) || pipe(go))
			return 3;
		in_handler = ready[1];
		may_leave = go[0];
		child = fork();
		if (!child)
			die();
		read(ready[0], &byte, 1);
		pthread_barrier_wait(&begin);
		pthread_barrier_wait(&end);
		write(go[1], &byte, 1);
		if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != SIGSEGV)
			return 4;
		close(ready[0]);
		close(ready[1]);
		close(go[0]);
		close(go[1]);
	}
	over = 1;
	pthread_barrier_wait(&begin);
	return 0;
}
