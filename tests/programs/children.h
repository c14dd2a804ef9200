/* SPDX-License-Identifier: MIT */
/*
 * Children that are to die of a signal.
 */
#ifndef CHILDREN_H
#define CHILDREN_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Waits for a child, which must die of `signal`. */
static inline pid_t ended(pid_t pid, int signal)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != signal) {
		fprintf(stderr, "a child that was to die of signal %d has status %#x\n", signal, status);
		exit(97);
	}
	return pid;
}

/* Runs `die` in a child, which must die of `signal`. */
static inline pid_t child(void (*die)(void), int signal)
{
	pid_t pid = fork();

	if (pid < 0)
		exit(99);
	if (!pid) {
		die();
		_exit(98);
	}
	return ended(pid, signal);
}

/* Until a signal ends it. */
static inline void sleep_on(void)
{
	for (;;)
		pause();
}

#endif
