/* SPDX-License-Identifier: MIT */
/*
 * Runs in a guest of ci/bench --instructions, where a nanosecond is an instruction.
 *
 *   events KIND COUNT      makes COUNT events and prints how many instructions one takes, the event itself included
 *   events cpu PID...      prints the instructions that these processes have run so far
 *   events run COMMAND...  runs it and prints the instructions that it and its children took
 *
 * Cheap events are timed in short rounds, whose median leaves out the kernel's ticks and whatever else runs now and then.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE   4096UL
#define ROUNDS 25
#define FRAMES 16

static long clock_ns(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now))
		return -1;
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* Goes on behind the faulting instruction of fault(), which has seven bytes. */
static void skip(int number, siginfo_t *info, void *context)
{
	(void)info;
	if (number == SIGSEGV)
		((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 7;
}

static void fault(void)
{
	__asm__ volatile(".byte 0x8b,0x04,0x25,0x18,0,0,0" ::: "eax"); /* mov 0x18,%eax */
}

__attribute__((noinline)) static void die(int depth)
{
	if (depth > 1)
		die(depth - 1);
	else
		*(volatile int *)0x18 = 1;
	__asm__ volatile("" ::: "memory"); /* not a tail call */
}

/* Dies where the frame pointer is no pointer to a frame. */
__attribute__((noinline)) static void die_without_frames(void)
{
	__asm__ volatile("mov $1, %%ebp\n movl $1, 0x18" ::: "memory");
}

static void child(void (*run)(void))
{
	pid_t pid = vfork();

	if (!pid) {
		run();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void nothing(void)
{
}

static void die_deep(void)
{
	die(FRAMES - 3); /* main, child and die_deep are frames as well */
}

static void crash(long count)
{
	while (count--)
		child(die_deep);
}

static void crash_without_frames(long count)
{
	while (count--)
		child(die_without_frames);
}

static void ending(long count)
{
	while (count--)
		child(nothing);
}

/* COUNT processes of different names: each is a group of its own. */
static void groups(long count)
{
	char name[16];

	while (count--) {
		pid_t pid = fork();

		if (!pid) {
			snprintf(name, sizeof(name), "g%u", (unsigned)count);
			prctl(PR_SET_NAME, name);
			die_deep();
		}
		waitpid(pid, NULL, 0);
	}
}

static void faults(long count)
{
	while (count--)
		fault();
}

static void kills(long count)
{
	pid_t self = getpid();

	while (count--)
		kill(self, SIGUSR1);
}

static void pages(long count)
{
	static char *at;

	if (!at) {
		at = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		madvise(at, count * PAGE, MADV_NOHUGEPAGE);
	}
	for (long i = 0; i < count; i++)
		*(volatile char *)(at + i * PAGE) = 1;
	madvise(at, count * PAGE, MADV_DONTNEED);
}

static void mappings(long count)
{
	while (count--) {
		char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		mprotect(page, PAGE, PROT_READ);
		munmap(page, PAGE);
	}
}

static void calls(long count)
{
	while (count--)
		syscall(SYS_getppid);
}

static const struct kind {
	const char *name;
	void (*make)(long count);
	int is_cheap;
} kinds[] = {
	{ "crash", crash, 0 },	  { "crash-without-frames", crash_without_frames, 0 },
	{ "exit", ending, 0 },	  { "groups", groups, 0 },
	{ "fault", faults, 1 },	  { "signal", kills, 1 },
	{ "page", pages, 1 },	  { "mapping", mappings, 1 },
	{ "call", calls, 1 },
};

static int compare(const void *one, const void *other)
{
	long difference = *(const long *)one - *(const long *)other;

	return difference < 0 ? -1 : difference > 0;
}

static int measure(const struct kind *kind, long count)
{
	long taken[ROUNDS], rounds = kind->is_cheap ? ROUNDS : 1;

	for (long i = 0; i < rounds; i++) {
		long begin = clock_ns(CLOCK_MONOTONIC);

		kind->make(count);
		taken[i] = clock_ns(CLOCK_MONOTONIC) - begin;
	}
	qsort(taken, rounds, sizeof(*taken), compare);
	printf("%.1f\n", (double)taken[rounds / 2] / count);
	return 0;
}

static int run(char **command)
{
	struct rusage used;
	pid_t pid = fork();
	int status;

	if (!pid) {
		execvp(command[0], command);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid || getrusage(RUSAGE_CHILDREN, &used))
		return 1;
	printf("%ld\n", (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000L +
				(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000L);
	return status != 0;
}

static int cpu(int count, char **pids)
{
	long sum = 0;

	for (int i = 0; i < count; i++) {
		clockid_t clock;

		/* One that has ended has nothing to add. */
		if (!clock_getcpuclockid(atoi(pids[i]), &clock))
			sum += clock_ns(clock);
	}
	printf("%ld\n", sum);
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = skip, .sa_flags = SA_SIGINFO };

	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "cpu"))
		return cpu(argc - 2, argv + 2);
	if (!strcmp(argv[1], "run"))
		return run(argv + 2);
	prctl(PR_SET_DUMPABLE, 0); /* or 5.10 ends the parent with a child that dies in its memory, for the coredump's sake */
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strcmp(argv[1], kinds[i].name))
			continue;
		sigaction(SIGUSR1, &action, NULL);
		if (kinds[i].is_cheap)
			sigaction(SIGSEGV, &action, NULL);
		return measure(&kinds[i], atol(argv[2]));
	}
	return 2;
}
