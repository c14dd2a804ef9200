/* SPDX-License-Identifier: MIT */
/* W2: `fault-loop COUNT`: handles COUNT null writes 16 frames deep, and lives on. */
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>

static sigjmp_buf back;

static void recover(int signal)
{
	siglongjmp(back, signal);
}

__attribute__((noinline)) static int fault(long count)
{
	volatile long done = 0;

	if (sigsetjmp(back, 0) != 0)
		done++;
	if (done < count)
		*(volatile int *)NULL = 1;
	return done == count;
}

__attribute__((noinline)) static int descend(int depth, long count)
{
	int result = depth ? descend(depth - 1, count) : fault(count);

	__asm__ volatile("" ::: "memory"); /* not a tail call */
	return result;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = recover, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	return !descend(14, argc > 1 ? atol(argv[1]) : 1);
}
