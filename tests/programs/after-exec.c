/* SPDX-License-Identifier: MIT */
/*
 * Dies after an exec: its name and file are the new program's, which is this program under another name.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: fault_address 0x18
 * expect: comm second-name
 * expect: thread_name second-name
 * expect: diagnosis.kind null_dereference
 * expect: frames touch main
 */
#define _GNU_SOURCE
#include "truth.h"

DECLARE_AT(fault_here);

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::"r"(0x18UL) : "memory");
}

int main(int argc, char **argv)
{
	char folder[] = "/dev/shm/faultline-exec-XXXXXX";
	char path[64];
	char self[4096];
	long length;
	int alive[2];

	if (argc > 1) {
		touch();
		return 0;
	}
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length < 0 || !mkdtemp(folder))
		return 2;
	self[length] = 0;
	/* A link: exec follows it, so that the comm is the link's name and the executable is the file. */
	snprintf(path, sizeof(path), "%s/second-name", folder);
	if (symlink(self, path))
		return 2;
	truth_number("pid", getpid());
	truth_text("exe", self);
	/* The exec closes the pipe's other end, when it has found the file. */
	if (pipe2(alive, O_CLOEXEC))
		return 2;
	if (fork() == 0) {
		char none;

		close(alive[1]);
		if (read(alive[0], &none, 1))
			_exit(2);
		unlink(path);
		rmdir(folder);
		_exit(0);
	}
	execl(path, argv[0], "die", NULL);
	return 2;
}
