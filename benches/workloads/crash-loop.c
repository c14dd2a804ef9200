/* SPDX-License-Identifier: MIT */
/* W1: `crash-loop COUNT`: starts itself COUNT times to die by a null write two calls deep. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noinline)) static void write_to(volatile int *where)
{
	*where = 1;
}

__attribute__((noinline)) static int die(void)
{
	write_to(NULL);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return die();
	for (long i = atol(argv[1]); i > 0; i--) {
		pid_t child = vfork();
		int status;

		if (child == 0) {
			execl(argv[0], argv[0], (char *)NULL);
			_exit(127);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || !WIFSIGNALED(status))
			return 1;
	}
	return 0;
}
