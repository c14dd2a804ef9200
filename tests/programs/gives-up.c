/* SPDX-License-Identifier: MIT */
/*
 * Is ended by libc, or ends itself in ways that look like that: `gives-up CASE [first]`, as process 1 of a pid namespace with `first`.
 *
 *   format    %n in a format in writable memory
 *   longjmp   jumps into a function that has returned
 *   fd-set    puts a negative descriptor into an fd_set
 *   overflow  copies too long a string
 *   mode      creates a file without a mode
 *   twice     frees a block twice
 *   asserts   an assertion fails
 *   after     survives a double free, and calls abort() itself
 *   raises    the same, and raises SIGABRT itself
 *   exits     the same, and exits
 *   itself    calls abort()
 *
 * build: -O2 -D_FORTIFY_SOURCE=2
 */
#undef NDEBUG
#include "truth.h"

#include <assert.h>
#include <setjmp.h>
#include <signal.h>
#include <sched.h>
#include <sys/select.h>
#include <sys/wait.h>

#define NOINLINE __attribute__((noinline, noclone))

static jmp_buf back;
static volatile int number = -1;
static volatile size_t length = 64;

NOINLINE static void arm(int depth)
{
	volatile char local[256];

	local[0] = (char)depth;
	if (depth)
		arm(depth - 1);
	else
		setjmp(back);
	local[1] = local[0];
}

NOINLINE static void resume(void)
{
	longjmp(back, 1);
}

NOINLINE static void print(char *format)
{
	int count = 0;

	printf(format, &count);
}

NOINLINE static void watch(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(number, &set);
	select(1, &set, NULL, NULL, NULL);
}

NOINLINE static void copy(void)
{
	char buffer[8];
	char from[65];

	memset(from, 'a', 64);
	from[64] = 0;
	memcpy(buffer, from, length);
	write(2, buffer, 0);
}

NOINLINE static void create(void)
{
	volatile int flags = O_CREAT | O_WRONLY;

	open("/nowhere/file", flags);
}

NOINLINE static void release(void)
{
	char *volatile block = malloc(64);

	free(block);
	free(block);
}

NOINLINE static void check(int fine)
{
	assert(fine == 0);
}

NOINLINE static void give_up(void)
{
	abort();
}

static sigjmp_buf alive;

static void survive(int signal)
{
	(void)signal;
	siglongjmp(alive, 1);
}

/* Returns in process 1 of a pid namespace of its own. */
static void become_first(void)
{
	if (unshare(CLONE_NEWPID))
		_exit(4);
	if (fork()) {
		wait(NULL);
		_exit(3);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	char format[8] = "abc%n";

	if (argc > 2)
		become_first();
	if (!strcmp(what, "format")) {
		print(format);
	} else if (!strcmp(what, "longjmp")) {
		arm(5);
		resume();
	} else if (!strcmp(what, "fd-set")) {
		watch();
	} else if (!strcmp(what, "overflow")) {
		copy();
	} else if (!strcmp(what, "mode")) {
		create();
	} else if (!strcmp(what, "twice")) {
		release();
	} else if (!strcmp(what, "asserts")) {
		check(1);
	} else if (!strcmp(what, "after") || !strcmp(what, "raises") || !strcmp(what, "exits")) {
		signal(SIGABRT, survive);
		if (!sigsetjmp(alive, 1))
			release();
		signal(SIGABRT, SIG_DFL);
		if (!strcmp(what, "exits"))
			return 3;
		if (!strcmp(what, "raises"))
			raise(SIGABRT);
		give_up();
	} else if (!strcmp(what, "itself")) {
		give_up();
	}
	return 3;
}
