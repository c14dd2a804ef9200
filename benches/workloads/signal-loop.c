/* SPDX-License-Identifier: MIT */
/* W3: `signal-loop COUNT`: sends itself COUNT signals that nobody watches. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static volatile long seen;

static void count(int signal)
{
	(void)signal;
	seen++;
}

int main(int argc, char **argv)
{
	long wanted = argc > 1 ? atol(argv[1]) : 1;
	pid_t self = getpid();

	signal(SIGUSR1, count);
	for (long i = 0; i < wanted; i++)
		kill(self, SIGUSR1);
	return seen != wanted;
}
