/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Why the kernel sends a signal on its own account: for programs at the place where a signal is made, in the task that the kernel does it in.
 *
 * Refuses to guess: a reason is given only if what the kernel looks at before it sends the signal shows it.
 */
#ifndef FL_REASON_BPF_H
#define FL_REASON_BPF_H

#include "origin.bpf.h"

#define FL_NS_IN_S 1000000000ULL

static __always_inline void fl_set_reason(struct fl_reason *reason, enum fl_reason_kind kind)
{
	reason->kind = kind;
}

static __always_inline void fl_set_limit(struct fl_reason *reason, u64 limit)
{
	reason->limit = limit;
	reason->flags |= FL_REASON_HAS_LIMIT;
}

static __always_inline void fl_set_value(struct fl_reason *reason, u64 value)
{
	reason->value = value;
	reason->flags |= FL_REASON_HAS_VALUE;
}

/*
 * Has the process of `task` used as much processor time as `limit` allows, in seconds? The kernel holds the same two sums against it:
 * check_process_timers(), kernel/time/posix-cpu-timers.c.
 */
static __always_inline bool fl_reason_cpu_time(struct fl_reason *reason, struct task_struct *task, u64 limit)
{
	u64 used;

	if (limit == RLIM_INFINITY)
		return false;
	used = fl_read(task, signal, cputimer.cputime_atomic.utime.counter) +
	       fl_read(task, signal, cputimer.cputime_atomic.stime.counter);
	if (used / FL_NS_IN_S < limit)
		return false;
	fl_set_reason(reason, FL_REASON_CPU_TIME);
	fl_set_limit(reason, limit);
	fl_set_value(reason, used / FL_NS_IN_S);
	return true;
}

/* Does a limit of the time without a sleep, in microseconds, hold for the thread `task`? check_thread_timers(), in the same file. */
static __always_inline void fl_reason_real_time(struct fl_reason *reason, struct task_struct *task, u64 limit)
{
	if (limit == RLIM_INFINITY || !fl_read(task, rt.timeout))
		return;
	fl_set_reason(reason, FL_REASON_REAL_TIME);
	fl_set_limit(reason, limit);
}

/* Has the thread `task` asked for SIGXCPU when it uses up its time before its deadline (sched_setattr(2))? */
static __always_inline bool fl_reason_deadline(struct fl_reason *reason, struct task_struct *task)
{
	if (fl_read(task, policy) != SCHED_DEADLINE || !(fl_read(task, dl.flags) & SCHED_FLAG_DL_OVERRUN))
		return false;
	fl_set_reason(reason, FL_REASON_DEADLINE);
	return true;
}

/* The limit of file size, against which a write or a truncation of `task` has run. */
static __always_inline void fl_reason_file_size(struct fl_reason *reason, struct task_struct *task)
{
	u64 limit = fl_read(task, signal, rlim[RLIMIT_FSIZE].rlim_cur);

	if (limit == RLIM_INFINITY)
		return;
	fl_set_reason(reason, FL_REASON_FILE_SIZE);
	fl_set_limit(reason, limit);
}

/* The number in `task`'s pid namespace of its process, and in `*level` how deep that namespace is. */
static __always_inline struct upid *fl_innermost(struct task_struct *task, u32 *level)
{
	struct pid *pid = fl_read(task, signal, pids[PIDTYPE_TGID]);

	*level = fl_read(pid, level) & 31;
	return fl_upid(pid, *level);
}

/* Is the current task process 1 of a pid namespace, not the host's, that `target` is in? */
static __always_inline bool fl_is_init_of(struct task_struct *task, struct task_struct *target)
{
	struct pid *pid = fl_read(target, signal, pids[PIDTYPE_TGID]);
	struct upid *own, *others;
	u32 level;

	own = fl_innermost(task, &level);
	if (!level || fl_read(own, nr) != 1 || fl_read(pid, level) < level)
		return false;
	others = fl_upid(pid, level);
	return fl_read(others, ns) == fl_read(own, ns);
}

/* SEND_SIG_PRIV from a task that ends: exit_ptrace(), kernel/ptrace.c, and zap_pid_ns_processes(), kernel/pid_namespace.c. */
static __always_inline void fl_reason_of_end(struct fl_reason *reason, struct task_struct *task,
					     struct task_struct *target)
{
	if (fl_read(target, ptrace) & PT_EXITKILL && fl_read(target, parent, tgid) == fl_own(task, tgid))
		fl_set_reason(reason, FL_REASON_TRACER_ENDED);
	else if (fl_is_init_of(task, target))
		fl_set_reason(reason, FL_REASON_NAMESPACE_ENDED);
	else
		return;
	fl_set_value(reason, fl_own(task, tgid));
}

/*
 * SIGHUP and SIGCONT: disassociate_ctty() and tty_signal_session_leader(), drivers/tty/tty_jobctrl.c, and kill_orphaned_pgrp(), kernel/exit.c.
 * A process of the session that ends may be its leader, or leave a group without a parent, or both. If the target is the leader, it may as well
 * have hung up the terminal: nothing tells them apart.
 */
static __always_inline void fl_reason_hangup(struct fl_reason *reason, struct task_struct *task,
					     struct task_struct *target)
{
	struct pid *session = fl_read(target, signal, pids[PIDTYPE_SID]);

	if (!(fl_read(task, flags) & PF_EXITING) || fl_read(task, signal, pids[PIDTYPE_SID]) != session) {
		fl_set_reason(reason, FL_REASON_HANGUP);
		return;
	}
	if (fl_read(task, signal, pids[PIDTYPE_TGID]) == session)
		fl_set_reason(reason, FL_REASON_SESSION);
	else if (fl_read(target, signal, pids[PIDTYPE_TGID]) != session)
		fl_set_reason(reason, FL_REASON_ORPHANED);
	else
		return;
	fl_set_value(reason, fl_own(task, tgid));
}

/* The reasons of terminals and descriptors. False: it is another signal. */
static __always_inline bool fl_reason_device(struct fl_reason *reason, struct task_struct *task,
					     struct task_struct *target, u32 signal)
{
	switch (signal) {
	case FL_SIGHUP:
	case FL_SIGCONT:
		fl_reason_hangup(reason, task, target);
		return true;
	case FL_SIGINT:
	case FL_SIGQUIT:
	case FL_SIGTSTP:
	case FL_SIGWINCH:
		if (fl_read(target, signal, tty))
			fl_set_reason(reason, FL_REASON_TERMINAL);
		return true;
	case FL_SIGTTIN:
	case FL_SIGTTOU:
		if (fl_read(task, signal, pids[PIDTYPE_PGID]) == fl_read(target, signal, pids[PIDTYPE_PGID]))
			fl_set_reason(reason, FL_REASON_BACKGROUND);
		return true;
	case FL_SIGURG:
	case FL_SIGIO:
		fl_set_reason(reason, FL_REASON_DESCRIPTOR);
		return true;
	default:
		return false;
	}
}

/* SEND_SIG_PRIV. */
static __always_inline void fl_reason_privileged(struct fl_reason *reason, struct task_struct *task,
						 struct task_struct *target, u32 signal)
{
	if (signal == FL_SIGALRM || signal == FL_SIGVTALRM || signal == FL_SIGPROF) {
		fl_set_reason(reason, FL_REASON_TIMER);
	} else if (signal == FL_SIGKILL && fl_read(task, flags) & PF_EXITING) {
		fl_reason_of_end(reason, task, target);
	} else if (fl_reason_device(reason, task, target, signal) || fl_own(task, tgid) != fl_read(target, tgid)) {
		return;
	} else if (signal == FL_SIGKILL) {
		if (!fl_reason_cpu_time(reason, task, fl_read(task, signal, rlim[RLIMIT_CPU].rlim_max)))
			fl_reason_real_time(reason, task, fl_read(task, signal, rlim[RLIMIT_RTTIME].rlim_max));
	} else if (signal == FL_SIGXCPU) {
		if (!fl_reason_cpu_time(reason, task, fl_read(task, signal, rlim[RLIMIT_CPU].rlim_cur)) &&
		    !fl_reason_deadline(reason, task))
			fl_reason_real_time(reason, task, fl_read(task, signal, rlim[RLIMIT_RTTIME].rlim_cur));
	}
}

/* SEND_SIG_NOINFO. */
static __always_inline void fl_reason_plain(struct fl_reason *reason, struct task_struct *task,
					    struct kernel_siginfo *info, struct task_struct *target, u32 signal)
{
	if (fl_kills_cgroup(task, info, signal)) {
		fl_set_reason(reason, FL_REASON_CGROUP_KILL);
	} else if (fl_own(task, tgid) != fl_read(target, tgid)) {
		if (fl_read(task, flags) & PF_EXITING && (u32)fl_read(target, pdeath_signal) == signal)
			fl_set_reason(reason, FL_REASON_PARENT_ENDED);
	} else if (signal == FL_SIGPIPE) {
		fl_set_reason(reason, FL_REASON_BROKEN_PIPE);
	} else if (signal == FL_SIGXFSZ) {
		fl_reason_file_size(reason, task);
	}
}

/* The exit signal of a child: do_notify_parent(), kernel/signal.c. False: it is none. */
static __always_inline bool fl_reason_child(struct fl_reason *reason, struct task_struct *task,
					    struct task_struct *target, u32 signal, s32 code)
{
	struct task_struct *leader = fl_read(task, group_leader);

	if (code <= 0 || code > FL_CLD_MAX || signal == FL_SIGCHLD || !(fl_read(task, flags) & PF_EXITING))
		return false;
	if ((u32)fl_read(leader, exit_signal) != signal || fl_read(leader, parent, tgid) != fl_read(target, tgid))
		return false;
	fl_set_reason(reason, FL_REASON_CHILD_ENDED);
	fl_set_value(reason, fl_own(task, tgid));
	return true;
}

/* Signals with codes of their own get SI_SIGIO for an event of a descriptor: send_sigio_to_task(), fs/fcntl.c. */
#define FL_OWN_CODES (FL_FAULTS | FL_BIT(FL_SIGCHLD) | FL_BIT(FL_SIGSYS))

/* What a siginfo of the kernel's own making says. */
static __always_inline void fl_reason_told(struct fl_reason *reason, struct task_struct *task,
					   struct kernel_siginfo *info, struct task_struct *target, u32 signal,
					   s32 code)
{
	/* A process that sends one may write anything there. */
	if (fl_sends_info(task))
		return;
	if (code == SI_MESGQ) {
		fl_set_reason(reason, FL_REASON_MESSAGE);
		fl_set_value(reason, fl_own(task, tgid));
	} else if (code == SI_SIGIO || (code >= POLL_IN && code <= POLL_HUP && !(FL_OWN_CODES & FL_BIT(signal)))) {
		fl_set_reason(reason, FL_REASON_DESCRIPTOR);
		fl_set_value(reason, (u32)fl_read(info, _sifields._sigpoll._fd));
	}
}

/* Why the kernel sends `signal` with `code` to `target`, if it does so on its own account. The current task: `task`, from fl_current(). */
static __always_inline void fl_find_reason(struct fl_reason *reason, struct task_struct *task,
					   struct kernel_siginfo *info, struct task_struct *target, u32 signal,
					   s32 code)
{
	if ((u64)info == FL_PRIV_INFO)
		fl_reason_privileged(reason, task, target, signal);
	else if ((u64)info == FL_NO_INFO)
		fl_reason_plain(reason, task, info, target, signal);
	else if (code == SI_TIMER && !fl_is_on_stack(task, info))
		fl_set_reason(reason, FL_REASON_TIMER);
	else if (!fl_reason_child(reason, task, target, signal, code))
		fl_reason_told(reason, task, info, target, signal, code);
}

#endif
