/* SPDX-License-Identifier: MIT */
/* W6: `fork-loop COUNT`: COUNT children that exit at once. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	for (long i = argc > 1 ? atol(argv[1]) : 1; i > 0; i--) {
		pid_t child = fork();

		if (child == 0)
			_exit(0);
		if (child < 0 || waitpid(child, NULL, 0) != child)
			return 1;
	}
	return 0;
}
