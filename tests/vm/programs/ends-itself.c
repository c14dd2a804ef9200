/* SPDX-License-Identifier: MIT */
/*
 * Handles a fault, and ends by a signal that dumps no core: ends-itself WAY
 *
 * kill, raise, group: the handler sends it to its own process. left: the handler was left before. parent: another process sends it while the
 * handler runs. other: the handler sends it to another process, and then exits. execs: the handler turns into a shell, which sends it to itself.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *way;
static sigjmp_buf out;
static pid_t other;

static int is(const char *name)
{
	return !strcmp(way, name);
}

static void handler(int number)
{
	(void)number;
	if (is("kill"))
		kill(getpid(), SIGKILL);
	if (is("raise"))
		raise(SIGTERM);
	if (is("group"))
		kill(0, SIGTERM);
	if (is("left"))
		siglongjmp(out, 1);
	if (is("parent")) {
		kill(getppid(), SIGUSR1);
		for (;;)
			pause();
	}
	if (is("other"))
		kill(other, SIGKILL);
	if (is("execs"))
		execl("/bin/sh", "sh", "-c", "kill -ABRT $$", NULL);
	_exit(5);
}

__attribute__((noinline)) static void touch(void)
{
	*(volatile int *)0x18 = 1;
}

static void die(void)
{
	signal(SIGSEGV, handler);
	if (sigsetjmp(out, 1))
		kill(getpid(), SIGKILL);
	touch();
}

int main(int argc, char **argv)
{
	sigset_t ready;
	pid_t child;
	int number;

	way = argc > 1 ? argv[1] : "";
	sigemptyset(&ready);
	sigaddset(&ready, SIGUSR1);
	sigprocmask(SIG_BLOCK, &ready, NULL);
	other = fork();
	if (!other) {
		pause();
		_exit(0);
	}
	child = fork();
	if (!child) {
		setpgid(0, 0);
		die();
	}
	if (is("parent")) {
		sigwait(&ready, &number);
		kill(child, SIGKILL);
	}
	waitpid(child, NULL, 0);
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	return 0;
}
