/* SPDX-License-Identifier: MIT */
/*
 * Makes a system call that its own seccomp filter answers with SECCOMP_RET_TRAP: getppid, 110.
 *
 * expect: exit 159
 * expect: signal SIGSYS
 * expect: code SYS_SECCOMP
 * expect: fault_type seccomp
 * expect: fault_address null
 * expect: page_fault null
 * expect: seccomp.syscall 110
 * expect: seccomp.arch 3221225534
 * expect: diagnosis.kind seccomp
 * expect: frames refused main
 * on arm64: seccomp.syscall 173
 * on arm64: seccomp.arch 3221225655
 * on arm64, because: system calls have other numbers
 */
#include "seccomp.h"

int main(void)
{
	if (install_filter(SECCOMP_RET_TRAP))
		return 2;
	refused();
	return 0;
}
