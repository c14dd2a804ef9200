/* SPDX-License-Identifier: MIT */
/* For programs that make one system call, which their own seccomp filter answers: getppid, 110. */
#ifndef SECCOMP_H
#define SECCOMP_H

#include "truth.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

DECLARE_AT(after_call);

__attribute__((noinline, unused)) static void refused(void)
{
	truth_address("seccomp.call_address", after_call);
	TRUTH_AT(after_call);
	SYSTEM_CALL(SYS_getppid);
	AT(after_call, "nop");
}

/* `answer` is what the filter returns: SECCOMP_RET_*. */
static int install_filter(unsigned int answer)
{
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, answer),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(rules) / sizeof(rules[0]), rules };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

#endif
