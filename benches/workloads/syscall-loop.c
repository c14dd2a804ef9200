/* SPDX-License-Identifier: MIT */
/* W8: `syscall-loop COUNT`: COUNT times the cheapest system call there is, which nobody watches. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long wanted = argc > 1 ? atol(argv[1]) : 1;
	long parent = getppid();

	for (long i = 0; i < wanted; i++) {
		if (syscall(SYS_getppid) != parent)
			return 1;
	}
	return 0;
}
