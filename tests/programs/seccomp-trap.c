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
 */
#include "truth.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

DECLARE_AT(after_call);

__attribute__((noinline)) static void refused(void)
{
	truth_address("seccomp.call_address", after_call);
	TRUTH_AT(after_call);
	SYSTEM_CALL(SYS_getppid);
	AT(after_call, "nop");
}

int main(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 2;
	refused();
	return 0;
}
