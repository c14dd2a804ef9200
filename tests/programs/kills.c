/* SPDX-License-Identifier: MIT */
/*
 * Two processes that send each other SIGUSR1: argv[1] signals in all, each taken before the next is sent.
 * Checked by tests/vm/signal.rs.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long rounds = (argc > 1 ? atol(argv[1]) : 1000) / 2;
	pid_t parent = getpid(), child;
	sigset_t set;
	int signal, named[2];
	char byte;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (pipe(named))
		return 99;
	if (!(child = fork())) {
		prctl(PR_SET_NAME, "pong");
		if (write(named[1], "", 1) != 1)
			_exit(99);
		for (long i = 0; i < rounds; i++) {
			sigwait(&set, &signal);
			kill(parent, SIGUSR1);
		}
		_exit(0);
	}
	if (read(named[0], &byte, 1) != 1)
		return 99;
	for (long i = 0; i < rounds; i++) {
		kill(child, SIGUSR1);
		sigwait(&set, &signal);
	}
	waitpid(child, NULL, 0);
	return 0;
}
