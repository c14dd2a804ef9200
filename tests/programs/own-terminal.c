/* SPDX-License-Identifier: MIT */
/*
 * Children that a terminal ends or stops by a signal, and such that a process ends by the same one. It prints what each record must hold (own.h).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "own.h"

static pid_t *shared; /* pids that children of children tell */
static int master;    /* of the terminal */
static int terminal;  /* in who has it */

/* A child with a session and a terminal of its own, which runs `run`. It is ready when this returns. */
static pid_t at_terminal(void (*run)(void))
{
	pid_t pid;

	master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0 || grantpt(master) || unlockpt(master))
		exit(99);
	shared[0] = 0;
	if (!(pid = fork())) {
		const char *name = ptsname(master);

		setsid();
		terminal = open(name, O_RDWR);
		close(master);
		if (terminal < 0)
			_exit(99);
		run();
		_exit(98);
	}
	while (!*(volatile pid_t *)shared)
		usleep(1000);
	return pid;
}

static void wait_there(void)
{
	shared[0] = getpid();
	sleep_on();
}

static void type(const char *key)
{
	if (write(master, key, 1) != 1)
		exit(99);
}

static pid_t typed(const char *key, int signal)
{
	pid_t pid = at_terminal(wait_there);

	type(key);
	ended(pid, signal);
	close(master);
	return pid;
}

static pid_t hung_up(void)
{
	pid_t pid = at_terminal(wait_there);

	close(master);
	return ended(pid, SIGHUP);
}

/* The leader of the session ends when shared[1] says so; the group in the foreground is another one. */
static void lead(void)
{
	pid_t pid = fork();

	if (!pid) {
		setpgid(0, 0);
		sleep_on();
	}
	setpgid(pid, pid);
	signal(SIGTTOU, SIG_IGN);
	tcsetpgrp(terminal, pid);
	shared[0] = pid;
	_exit(0);
}

/* A session in which the parent of a stopped group ends. */
static void orphan(void)
{
	pid_t parent;

	setsid();
	if (!(parent = fork())) {
		pid_t pid = fork();

		if (!pid) {
			setpgid(0, 0);
			raise(SIGSTOP);
			_exit(98);
		}
		setpgid(pid, pid);
		waitpid(pid, NULL, WUNTRACED);
		shared[1] = getpid();
		shared[2] = pid;
		_exit(0);
	}
	/* Who waits for the orphan is its parent only when that one has ended. */
	waitpid(parent, NULL, 0);
	shared[0] = shared[2];
	sleep_on();
}

/* What a group in the background does; NULL: it is in the foreground, and a key stops it. */
static void (*in_background)(void);

static void read_it(void)
{
	char byte;

	if (read(terminal, &byte, 1) >= 0)
		_exit(98);
}

static void take_it(void)
{
	tcsetpgrp(terminal, getpgrp());
}

/* The leader of a session, with a child in a group of its own, which the terminal stops by shared[1]. */
static void control(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		setpgid(0, 0);
		if (in_background)
			in_background();
		sleep_on();
	}
	setpgid(pid, pid);
	signal(SIGTTOU, SIG_IGN);
	if (!in_background)
		tcsetpgrp(terminal, pid);
	shared[0] = pid;
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status) || WSTOPSIG(status) != shared[1])
		_exit(97);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	_exit(0);
}

static void stopped(const char *way, int signal, void (*use)(void), const char *reason)
{
	pid_t leader;
	int status;

	shared[1] = signal;
	in_background = use;
	leader = at_terminal(control);
	if (!use)
		type("\032");
	if (waitpid(leader, &status, 0) != leader || status) {
		fprintf(stderr, "%s: the leader's status is %#x\n", way, status);
		exit(97);
	}
	tell(way, shared[0], signal, 0, reason, NONE, NONE, 1);
	close(master);
}

static void stop_keys(void)
{
	pid_t pid;

	stopped("Ctrl-Z", SIGTSTP, NULL, "terminal");
	stopped("read in the background", SIGTTIN, read_it, "terminal_background");
	stopped("tcsetpgrp in the background", SIGTTOU, take_it, "terminal_background");
	for (int signal = SIGTSTP; signal <= SIGTTOU; signal++) {
		pid = at_terminal(wait_there);
		kill(pid, signal);
		tell("kill of what may stop", pid, signal, getpid(), "", NONE, NONE, 1);
		kill(pid, SIGKILL);
		ended(pid, SIGKILL);
		close(master);
	}
}

static void terminals(void)
{
	pid_t leader, pid;

	told("Ctrl-C", typed("\003", SIGINT), SIGINT, 0, "terminal", NONE, NONE);
	told("Ctrl-\\\\", typed("\034", SIGQUIT), SIGQUIT, 0, "terminal", NONE, NONE);
	told("closed", hung_up(), SIGHUP, 0, "terminal_hangup", NONE, NONE);
	for (int signal = SIGHUP; signal <= SIGQUIT; signal++) {
		pid = at_terminal(wait_there);
		kill(pid, signal);
		told("kill at a terminal", ended(pid, signal), signal, getpid(), "", NONE, NONE);
		close(master);
	}
	leader = at_terminal(lead);
	waitpid(leader, NULL, 0);
	told("leader's end", ended(shared[0], SIGHUP), SIGHUP, 0, "session_ended", NONE, leader);
	close(master);
	shared[0] = 0;
	if (!(pid = fork()))
		orphan();
	while (!*(volatile pid_t *)shared)
		usleep(1000);
	told("orphaned", ended(shared[0], SIGHUP), SIGHUP, 0, "group_orphaned", NONE, shared[1]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	shared = begin();
	if (!shared)
		return 99;
	terminals();
	stop_keys();
	return 0;
}
