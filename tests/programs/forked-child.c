/* SPDX-License-Identifier: MIT */
/*
 * A grandchild of the command dies; the command itself ends well.
 *
 * expect: exit 0
 * expect: signal SIGSEGV
 * expect: fault_address 0x18
 * expect: diagnosis.kind null_dereference
 * expect: frames touch grandchild child main
 */
#include "truth.h"

#include <sys/wait.h>

DECLARE_AT(fault_here);

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::"r"(0x18UL) : "memory");
}

__attribute__((noinline)) static void grandchild(void)
{
	truth_number("pid", getpid());
	truth_number("ppid", getppid());
	touch();
}

__attribute__((noinline)) static void child(void)
{
	if (fork() == 0)
		grandchild();
	wait(NULL);
	_exit(0);
}

int main(void)
{
	if (fork() == 0)
		child();
	wait(NULL);
	return 0;
}
