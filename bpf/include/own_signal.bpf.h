/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a process has sent a signal to itself: where it is delivered, by its siginfo, or, where it comes without one, by the call from which the
 * thread returns.
 */
#ifndef FL_OWN_SIGNAL_BPF_H
#define FL_OWN_SIGNAL_BPF_H

#include "filter.bpf.h"
#include "pt_regs.bpf.h"
#include "signal.h"
#include "task.bpf.h"

/* Did the process send this signal to itself, or the kernel for something that the process did? */
static __always_inline bool fl_is_own(struct task_struct *task, struct kernel_siginfo *info, s32 code)
{
	if (!info || code > 0)
		return info;
	return (u32)fl_read(info, _sifields._kill._pid) == fl_pid_in_namespace(task);
}

/* Which signal a process has sent to itself is known by the call from which the thread returns. */
enum fl_own_signal {
	FL_SENT_BY_NONE = 0,
	FL_SENT_BY_KILL = 1,  /* SI_USER */
	FL_SENT_BY_TKILL = 2, /* SI_TKILL */
};

/*
 * Has the current thread called kill(2) or its kin, to send this signal to its own process or thread? A fatal signal that dumps no core, and
 * SIGKILL, come without a sender. 32-bit calls have other numbers and registers: they have sent none.
 */
__noinline int fl_find_own_signal(u32 signal)
{
	struct task_struct *task = fl_current();
	const struct pt_regs *regs = fl_near_pt_regs(task);
	u64 number = fl_near_register(fl_regs_call(regs));
	u32 whom = fl_near_register(fl_regs_0(regs));
	u32 sent = number == FL_NR_TGKILL ? fl_near_register(fl_regs_2(regs)) : fl_near_register(fl_regs_1(regs));

	if (sent != signal || fl_is_compat_call(task))
		return FL_SENT_BY_NONE;
	if (number == FL_NR_KILL) /* 0: to each process of its group */
		return !whom || whom == fl_pid_in_namespace(task) ? FL_SENT_BY_KILL : FL_SENT_BY_NONE;
	if (number == FL_NR_TGKILL)
		return whom == fl_pid_in_namespace(task) ? FL_SENT_BY_TKILL : FL_SENT_BY_NONE;
	if (number == FL_NR_TKILL)
		return whom == fl_innermost_number(fl_read(task, thread_pid)) ? FL_SENT_BY_TKILL : FL_SENT_BY_NONE;
	return FL_SENT_BY_NONE;
}

/* The si_code of a signal that was sent so. */
static __always_inline s32 fl_code_of_own(int own)
{
	return own == FL_SENT_BY_TKILL ? SI_TKILL : SI_USER;
}

#endif
