/* SPDX-License-Identifier: MIT */
/*
 * Executes a command with a layout that is random, as everybody's is: `randomly COMMAND...`. In guests the tests themselves run
 * without (ci/guest), so that QEMU need not translate the same code anew for each process.
 */
#include <stdio.h>
#include <sys/personality.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 2 || personality(personality(0xffffffff) & ~ADDR_NO_RANDOMIZE) == -1) {
		perror("randomly");
		return 2;
	}
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 2;
}
