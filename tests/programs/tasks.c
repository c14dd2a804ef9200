/* SPDX-License-Identifier: MIT */
/*
 * Makes tasks that end in every possible way, and prints for each what its exit record must hold: one JSON object a line.
 * Checked by tests/vm/signal.rs.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void told(int pid, int tgid, const char *thread, int code, const char *signal)
{
	printf("{\"pid\": %d, \"tgid\": %d, \"is_thread\": %s, \"exit_code\": %d, \"signal\": \"%s\"}\n", pid, tgid,
	       thread, code, signal);
	fflush(stdout);
}

/* Has the first thread ended, and the process not? */
static int is_zombie(void)
{
	char state = 0;
	FILE *stat = fopen("/proc/self/stat", "r");

	if (!stat || fscanf(stat, "%*d (tasks) %c", &state) != 1)
		exit(98);
	fclose(stat);
	return state == 'Z';
}

/* Prints its ids. If it is to be the last one, it waits until all others are gone. */
static void *thread(void *last)
{
	if (!last) {
		told(gettid(), getpid(), "true", 0, "");
		return NULL;
	}
	while (!is_zombie())
		usleep(1000);
	/* The process ends with this thread, and with this code. */
	told(getpid(), getpid(), "false", 5, "");
	exit(5);
}

int main(int argc, char **argv)
{
	pthread_t id;
	pid_t child;

	if (argc > 1)
		return atoi(argv[1]);
	pthread_create(&id, NULL, thread, NULL);
	pthread_join(id, NULL);
	if (!(child = fork()))
		_exit(3);
	told(child, child, "false", 3, "");
	waitpid(child, NULL, 0);
	if (!(child = fork())) {
		pause();
		_exit(0);
	}
	kill(child, SIGTERM);
	told(child, child, "false", -1, "SIGTERM");
	waitpid(child, NULL, 0);
	if (!(child = fork())) {
		execl("/proc/self/exe", "tasks", "7", NULL);
		_exit(99);
	}
	told(child, child, "false", 7, "");
	waitpid(child, NULL, 0);
	if (!(child = fork())) {
		told(getpid(), getpid(), "true", 0, "");
		pthread_create(&id, NULL, thread, "last");
		pthread_exit(NULL);
	}
	waitpid(child, NULL, 0);
	return 0;
}
