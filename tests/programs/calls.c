/* SPDX-License-Identifier: MIT */
/*
 * Makes the system calls that the lines of standard input ask for, and prints the arguments and the result of each:
 *
 *   memory         mmap, mprotect, munmap, and a munmap that fails
 *   failing N US   N calls of munmap that fail, after US microseconds without a call
 *   many N         N calls of mprotect, of 0 bytes at 0x1000, 0x2000, ... : they change nothing
 *   threads N      N threads that call mprotect once each, of 0 bytes at 0x1000 * their number, and end
 *   truncate PATH  opens the file, cuts it by its name to 4096 bytes and by its descriptor to 5000
 *   folder PATH    makes a folder there, and removes it
 *   child PATH     the same in a child that ends
 *   rename NAME    changes its name
 *   signal N       sends itself SIGUSR2 N times, which it ignores by a handler
 *   crash          maps a page, unmaps it and touches it
 *   spin N         N pairs of mprotect as fast as it can; prints how long they took
 *
 * Each ends with a line "done". The program makes none of these calls besides.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char input[4096], output[65536];

static long result(long value)
{
	return value < 0 ? -errno : value;
}

static void nothing(int signal)
{
	(void)signal;
}

static void memory(void)
{
	char *address = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	printf("address %lu\n", (unsigned long)address);
	printf("mprotect %ld\n", result(mprotect(address, 4096, PROT_READ)));
	printf("munmap %ld\n", result(munmap(address, 8192)));
	printf("failed %ld\n", result(munmap((void *)1, 4096)));
}

static void busy(long microseconds)
{
	struct timespec begin, now;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - begin.tv_sec) * 1000000 + (now.tv_nsec - begin.tv_nsec) / 1000 < microseconds);
}

static void failing(const char *argument)
{
	char *delay;
	unsigned long count = strtoul(argument, &delay, 10);

	busy(strtol(delay, NULL, 10));
	while (count--)
		munmap((void *)1, 4096);
}

static void many(unsigned long count)
{
	for (unsigned long i = 1; i <= count; i++)
		mprotect((void *)(i * 0x1000), 0, PROT_NONE);
}

static void *thread(void *number)
{
	mprotect((void *)((unsigned long)number * 0x1000), 0, PROT_NONE);
	return NULL;
}

static void threads(unsigned long count)
{
	for (unsigned long i = 1; i <= count; i++) {
		pthread_t one;

		if (pthread_create(&one, NULL, thread, (void *)i) || pthread_join(one, NULL))
			exit(1);
	}
}

static void cut(const char *path)
{
	int fd = open(path, O_RDWR);

	printf("fd %d\n", fd);
	printf("truncate %ld\n", result(truncate(path, 4096)));
	printf("ftruncate %ld\n", result(ftruncate(fd, 5000)));
	close(fd);
}

static void folder(const char *path)
{
	printf("mkdir %ld\n", result(syscall(SYS_mkdirat, AT_FDCWD, path, 0700)));
	rmdir(path);
}

static void child(const char *path)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		syscall(SYS_truncate, path, 4096L);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	printf("child %d\n", pid);
}

static void spin(unsigned long count)
{
	struct timespec begin, end;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (unsigned long i = 0; i < count; i++) {
		mprotect((void *)0x1000, 0, PROT_NONE);
		mprotect((void *)0x2000, 0, PROT_NONE);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("ns %ld\n", (end.tv_sec - begin.tv_sec) * 1000000000L + end.tv_nsec - begin.tv_nsec);
}

static void crash(void)
{
	volatile char *address = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	printf("address %lu\n", (unsigned long)address);
	fflush(stdout);
	munmap((void *)address, 4096);
	*address = 1;
}

int main(void)
{
	char line[1024];

	/* So that nothing allocates memory later. */
	setvbuf(stdin, input, _IOLBF, sizeof(input));
	setvbuf(stdout, output, _IOFBF, sizeof(output));
	signal(SIGUSR2, nothing);
	while (fgets(line, sizeof(line), stdin)) {
		char *argument = strchr(line, ' ');

		line[strcspn(line, "\n")] = 0;
		if (argument)
			*argument++ = 0;
		if (!strcmp(line, "memory"))
			memory();
		else if (!strcmp(line, "failing"))
			failing(argument);
		else if (!strcmp(line, "many"))
			many(atol(argument));
		else if (!strcmp(line, "threads"))
			threads(atol(argument));
		else if (!strcmp(line, "truncate"))
			cut(argument);
		else if (!strcmp(line, "folder"))
			folder(argument);
		else if (!strcmp(line, "child"))
			child(argument);
		else if (!strcmp(line, "rename"))
			prctl(PR_SET_NAME, argument);
		else if (!strcmp(line, "signal"))
			for (long i = atol(argument); i > 0; i--)
				raise(SIGUSR2);
		else if (!strcmp(line, "spin"))
			spin(atol(argument));
		else if (!strcmp(line, "crash"))
			crash();
		puts("done");
		fflush(stdout);
	}
	return 0;
}
