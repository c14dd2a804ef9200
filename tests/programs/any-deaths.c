/* SPDX-License-Identifier: MIT */
/*
 * Dies COUNT times, each time in a way that was hardly there before: `any-deaths SEED COUNT [NAME [FIRST USERS]]`. By a random walk of two
 * functions that call themselves and each other, under a name that begins with NAME, as one of USERS users from FIRST on, by a random signal
 * and with a random code. Each death is a child's, which shares this process's memory (vfork), so that there can be thousands a second.
 *
 * build: -O1 -fno-optimize-sibling-calls
 */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "truth.h"

static unsigned long state;

/* Numbers that are the same for the same SEED: xorshift64. */
static unsigned long any(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGQUIT};

/* Faults, or sends itself a signal with a code that no kernel sends. */
static void die(unsigned long how)
{
	int signal = signals[how % 8];
	siginfo_t info = {.si_signo = signal, .si_code = -7 - (int)(how >> 8 & 0xffff)};

	if (how >> 3 & 1)
		*(volatile int *)(how >> 24 & 0xff8) = 0;
	if (how >> 4 & 1)
		syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signal, &info);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
}

__attribute__((noinline)) static long right(unsigned long path, unsigned depth);

__attribute__((noinline)) static long left(unsigned long path, unsigned depth)
{
	if (depth == 0)
		die(any());
	else if (path & 1)
		return left(path >> 1, depth - 1) + 1;
	else
		return right(path >> 1, depth - 1) + 2;
	return 0;
}

__attribute__((noinline)) static long right(unsigned long path, unsigned depth)
{
	if (depth == 0)
		die(any());
	else if (path & 1)
		return right(path >> 1, depth - 1) + 3;
	else
		return left(path >> 1, depth - 1) + 4;
	return 0;
}

/* One death, as this user: 0 is the one that there is. False: it did not die of a signal. */
__attribute__((noinline)) static int die_once(const char *name, long user)
{
	unsigned long path = any(), depth = any() % 20;
	char comm[32];
	pid_t child;
	int status;

	snprintf(comm, sizeof(comm), "%.8s%06lx", name, any() & 0xffffff);
	child = vfork();
	if (child == 0) {
		/* The process's own: libc's would change the users of all that share the memory. */
		if (user)
			syscall(SYS_setresuid, user, user, user);
		prctl(PR_SET_NAME, comm);
		_exit((int)left(path, (unsigned)depth));
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status);
}

int main(int argc, char **argv)
{
	long count = argc > 2 ? atol(argv[2]) : 1;
	const char *name = argc > 3 ? argv[3] : "any";
	long first = argc > 4 ? atol(argv[4]) : 0, users = argc > 5 ? atol(argv[5]) : 0;

	state = (argc > 1 ? strtoul(argv[1], NULL, 0) : 1) * 0x9e3779b97f4a7c15UL + 1;
	/* A core dump would kill all processes that share the memory. */
	prctl(PR_SET_DUMPABLE, 0);
	/* A shell has what it starts in the background ignore SIGQUIT. */
	for (unsigned i = 0; i < 8; i++)
		signal(signals[i], SIG_DFL);
	for (long i = 0; i < count; i++)
		if (!die_once(name, users ? first + (long)(any() % (unsigned long)users) : 0))
			return 2;
	return 0;
}
