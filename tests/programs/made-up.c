/* SPDX-License-Identifier: MIT */
/*
 * Makes programs that each die once, under a name that begins with NAME, until it is killed: `made-up NAME`. Each is a file of its own, which
 * belongs to the user that this runs as.
 *
 * build: -static -O1
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "truth.h"

extern char **environ;

/* One more program: a copy of this one. */
static int made(const char *name)
{
	int own = open("/proc/self/exe", O_RDONLY), copy = memfd_create(name, MFD_CLOEXEC);
	struct stat file;
	off_t at = 0;

	if (own < 0 || copy < 0 || fstat(own, &file))
		return -1;
	while (at < file.st_size)
		if (sendfile(copy, own, &at, (size_t)(file.st_size - at)) <= 0)
			return -1;
	close(own);
	return copy;
}

int main(int argc, char **argv)
{
	struct rlimit none = {0, 0};

	if (argc > 2) {
		prctl(PR_SET_NAME, argv[1]);
		*(volatile int *)0 = 0;
	}
	setrlimit(RLIMIT_CORE, &none);
	for (unsigned number = 0; argc > 1; number++) {
		char name[64];
		int copy, status;
		pid_t child;

		snprintf(name, sizeof(name), "%.16s%08x", argv[1], number * 0x9e3779b1u);
		copy = made(name);
		if (copy < 0)
			return 2;
		child = vfork();
		if (child == 0) {
			char *arguments[] = {argv[0], name, "die", NULL};

			syscall(SYS_execveat, copy, "", arguments, environ, AT_EMPTY_PATH);
			_exit(3);
		}
		close(copy);
		if (child < 0 || waitpid(child, &status, 0) != child || !WIFSIGNALED(status))
			return 4;
	}
	return 0;
}
