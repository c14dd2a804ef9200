/* SPDX-License-Identifier: MIT */
/*
 * Dies as the first process of a pid namespace, from a file that only its own mount namespace shows.
 *
 * expect: exit 0
 * expect: signal SIGSEGV
 * expect: disposition fatal
 * expect: fault_address 0x18
 * expect: pid_in_namespace 1
 * expect: comm hidden
 * expect: exe /mnt/hidden
 * expect: diagnosis.kind null_dereference
 */
#include "truth.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

DECLARE_AT(fault_here);

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::"r"(0x18UL) : "memory");
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1) {
		touch();
		return 0;
	}
	if (unshare(CLONE_NEWNS | CLONE_NEWPID) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return 2;
	if (mount("tmpfs", "/mnt", "tmpfs", 0, NULL) || copy_file("/proc/self/exe", "/mnt/hidden"))
		return 2;
	if (fork() == 0) {
		execl("/mnt/hidden", "hidden", "die", NULL);
		_exit(2);
	}
	wait(NULL);
	return 0;
}
