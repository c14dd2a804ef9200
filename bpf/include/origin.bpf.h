/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether the current task has sent a signal, or only happened to run when the kernel sent it: for programs at the place where a signal is
 * made.
 */
#ifndef FL_ORIGIN_BPF_H
#define FL_ORIGIN_BPF_H

#include "pt_regs.bpf.h"
#include "signal.h"

/* struct kernel_siginfo *, or one of two numbers: SEND_SIG_NOINFO and SEND_SIG_PRIV, include/linux/sched/signal.h. */
#define FL_NO_INFO   0
#define FL_PRIV_INFO 1

/* The code that the target will see: __send_signal_locked(), kernel/signal.c. */
static __always_inline s32 fl_code_of(struct kernel_siginfo *info)
{
	if ((u64)info == FL_NO_INFO)
		return SI_USER;
	return (u64)info == FL_PRIV_INFO ? SI_KERNEL : fl_read(info, si_code);
}

/* Was this siginfo made by a system call of the current task? Timers keep theirs elsewhere. */
static __always_inline bool fl_is_on_stack(struct task_struct *task, struct kernel_siginfo *info)
{
	return (u64)info - (u64)fl_read(task, stack) < FL_KERNEL_STACK_BYTES;
}

/* The system call that the current task is in; negative: none. */
static __always_inline s64 fl_current_call(struct task_struct *task)
{
	const struct pt_regs *regs = fl_near_pt_regs(task);

	return (s32)fl_register(fl_regs_call(regs));
}

/* Is the current task in a call that hands a siginfo of its own to the kernel? */
static __always_inline bool fl_sends_info(struct task_struct *task)
{
	s64 call = fl_current_call(task);

	return call == FL_NR_RT_SIGQUEUEINFO || call == FL_NR_RT_TGSIGQUEUEINFO || call == FL_NR_PIDFD_SEND_SIGNAL;
}

/*
 * Does the current task write to a cgroup.kill? Nothing else sends a SIGKILL without a siginfo (SEND_SIG_NOINFO) but the end of a parent
 * (PR_SET_PDEATHSIG), which is no system call that writes.
 */
static __always_inline bool fl_kills_cgroup(struct task_struct *task, struct kernel_siginfo *info, u32 signal)
{
	s64 call;

	if (signal != FL_SIGKILL || (u64)info != FL_NO_INFO || fl_read(task, flags) & PF_EXITING)
		return false;
	call = fl_current_call(task);
	return call == FL_NR_WRITE || call == FL_NR_PWRITE64 || call == FL_NR_WRITEV;
}

/*
 * Is the current task the sender? Not if it only happened to run: for timers, terminals, a lack of memory. And not if the kernel sends a
 * signal because of something that the process itself did (SIGPIPE, faults).
 */
static __always_inline bool fl_is_sender(struct task_struct *task, struct kernel_siginfo *info,
					 struct task_struct *target, u32 signal, s32 code)
{
	/* Without a siginfo the kernel sends on behalf of the task that writes to cgroup.kill, or of a parent that dies (PR_SET_PDEATHSIG). */
	if ((u64)info == FL_NO_INFO)
		return fl_own_tgid(task) != fl_read(target, tgid) || fl_kills_cgroup(task, info, signal);
	if ((u64)info == FL_PRIV_INFO)
		return false;
	if (code > 0) {
		int other = fl_read(target, tgid);

		/* rt_sigqueueinfo(2): a process may send itself any code. */
		if (fl_own_tgid(task) == other)
			return fl_is_on_stack(task, info) && fl_sends_info(task);
		/* A child reports to its parent, or its tracer, what became of it. */
		return signal == FL_SIGCHLD && code <= FL_CLD_MAX &&
		       (fl_read(task, group_leader, real_parent, tgid) == other ||
			fl_read(task, group_leader, parent, tgid) == other);
	}
	/* The kernel sends these for an event of a descriptor; and glibc sends the first one for its own aio(7). */
	if (code == SI_ASYNCIO || code == SI_SIGIO)
		return fl_sends_info(task);
	/* rt_sigqueueinfo(2): these may be forged. */
	if (code == SI_TIMER || code == SI_DETHREAD)
		return fl_is_on_stack(task, info);
	return true;
}

#endif
