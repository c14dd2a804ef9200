/* SPDX-License-Identifier: MIT */
/*
 * Dies SAME times in one place and once in each of the first SITES of 10 000 others, evenly mixed: `many-deaths SAME SITES`. Each
 * death is a child's, which shares this process's memory (vfork), so that there can be thousands a second.
 *
 * build: -O1
 */
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "truth.h"

#define SITES 10001 /* the first place and the others */

/* Instructions that write to address 0, 16 bytes apart. On arm64 it is their first argument. */
extern char sites[];
__asm__(".pushsection .text\n"
	".balign 16\n"
	"sites:\n"
	".rept 10001\n"
#ifdef __x86_64__
	"movl $0, 0\n"
#else
	"str wzr, [x0]\n"
#endif
	".balign 16\n"
	".endr\n"
	".popsection\n");

__attribute__((noinline)) static void die_at(long site)
{
	pid_t child = vfork();
	int status;

	if (child == 0) {
		((void (*)(unsigned long))(sites + site * 16))(0);
		_exit(1);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFSIGNALED(status))
		exit(2);
}

int main(int argc, char **argv)
{
	long same = argc > 1 ? atol(argv[1]) : 1, others = argc > 2 ? atol(argv[2]) : 0, other = 0;
	long total = same + others;

	if (others >= SITES)
		return 2;
	/* A core dump would kill all processes that share the memory. */
	prctl(PR_SET_DUMPABLE, 0);
	/* One call for all places: with several, the deaths would differ by their callers. */
	for (long i = 1; i <= total; i++)
		die_at(others * i / total > other ? ++other : 0);
	return 0;
}
