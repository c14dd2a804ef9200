/* SPDX-License-Identifier: MIT */
/*
 * Dies because of an earlier system call, which the case names: `call-causes CASE [FILE]`.
 *
 *   own        unmaps its buffer, and reads it 30 ms later; meanwhile another thread maps and unmaps other memory
 *   thread     another thread unmaps the buffer
 *   moved      mremap moves it away
 *   protected  mprotect makes it read-only, and it writes
 *   heap       brk gives the end of the heap back
 *   again      unmaps the buffer, maps something else there, and reads behind that
 *   mapped     maps FILE, says so, waits for a line on its standard input, and reads the mapping
 */
#include "truth.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#undef PAGE
#define PAGE	     page_size()
#define BUFFER_PAGES 8
#define OTHER_PAGES  64
#define WAIT_US	     30000

static volatile char *buffer;
static _Atomic int unmapped;

static void fail(const char *what)
{
	perror(what);
	_exit(3);
}

static char *map(unsigned long pages, int protection, int flags, void *at)
{
	void *memory = mmap(at, pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static volatile int is_busy;

/* Maps and unmaps pages in memory that it has reserved, so that memory that others unmap is not used again. */
static void *busy(void *reserved)
{
	truth_number("busy", syscall(SYS_gettid));
	for (unsigned long i = 0;; i++) {
		char *page = (char *)reserved + i % OTHER_PAGES * PAGE;

		*map(1, PROT_READ | PROT_WRITE, MAP_FIXED, page) = 1;
		munmap(page, PAGE);
		is_busy = 1;
		usleep(100);
	}
	return NULL;
}

static void *unmap(void *nothing)
{
	truth_number("tid", syscall(SYS_gettid));
	if (munmap((void *)buffer, BUFFER_PAGES * PAGE))
		fail("munmap");
	unmapped = 1;
	pause();
	return nothing;
}

static void start(void *(*body)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, body, argument))
		fail("pthread_create");
}

/* The program dies here; it has said everything before. */
static void touch(volatile char *at, int write)
{
	truth_address("fault_address", at);
	if (write)
		*at = 1;
	else
		(void)*at;
	_exit(4);
}

static void wait_for_file(const char *path)
{
	int fd = open(path, O_RDWR);
	char line;

	if (fd < 0)
		fail("open");
	buffer = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (buffer == MAP_FAILED)
		fail("mmap");
	truth_number("pid", getpid());
	if (read(0, &line, 1) != 1)
		fail("read");
	touch(buffer + 2 * PAGE + 16, 0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "mapped"))
		wait_for_file(argv[2]);
	truth_number("pid", getpid());
	if (strcmp(what, "own") && strcmp(what, "thread"))
		truth_number("tid", getpid());
	buffer = map(BUFFER_PAGES, PROT_READ | PROT_WRITE, 0, NULL);
	buffer[PAGE] = 1;
	truth_address("address", buffer);
	if (!strcmp(what, "own")) {
		start(busy, map(OTHER_PAGES, PROT_NONE, 0, NULL));
		truth_number("tid", getpid());
		while (!is_busy)
			usleep(100);
		munmap((void *)buffer, BUFFER_PAGES * PAGE);
		usleep(WAIT_US);
		touch(buffer + 2 * PAGE + 8, 0);
	} else if (!strcmp(what, "thread")) {
		start(unmap, NULL);
		while (!unmapped)
			usleep(100);
		usleep(WAIT_US);
		touch(buffer + 2 * PAGE + 8, 0);
	} else if (!strcmp(what, "moved")) {
		/* A free place that is not next to the mapping, which would only grow there. */
		char *to = map(BUFFER_PAGES, PROT_NONE, 0, NULL);

		if (mremap((void *)buffer, BUFFER_PAGES * PAGE, BUFFER_PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			   to) != to)
			fail("mremap");
		truth_address("moved", to);
		touch(buffer, 1);
	} else if (!strcmp(what, "protected")) {
		mprotect((void *)buffer, 2 * PAGE, PROT_READ);
		touch(buffer + PAGE, 1);
	} else if (!strcmp(what, "heap")) {
		char *begin = sbrk(0);

		begin += -(unsigned long)begin % PAGE;
		if (brk(begin + 4 * PAGE) || brk(begin + PAGE))
			fail("brk");
		touch(begin + 2 * PAGE, 0);
	} else if (!strcmp(what, "again")) {
		munmap((void *)buffer, BUFFER_PAGES * PAGE);
		map(2, PROT_READ, MAP_FIXED, (void *)buffer);
		touch(buffer + 2 * PAGE, 0);
	}
	return 3;
}
