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

/* SEND_SIG_PRIV. */
static __always_inline void fl_reason_privileged(struct fl_reason *reason, struct task_struct *task,
						 struct task_struct *target, u32 signal)
{
	if (signal == FL_SIGALRM || signal == FL_SIGVTALRM || signal == FL_SIGPROF) {
		fl_set_reason(reason, FL_REASON_TIMER);
	} else if (signal == FL_SIGKILL && fl_read(task, flags) & PF_EXITING) {
		fl_reason_of_end(reason, task, target);
	} else if (fl_own(task, tgid) != fl_read(target, tgid)) {
		return;
	} else if (signal == FL_SIGKILL) {
		if (!fl_reason_cpu_time(reason, task, fl_read(task, signal, rlim[RLIMIT_CPU].rlim_max)))
			fl_reason_real_time(reason, task, fl_read(task, signal, rlim[RLIMIT_RTTIME].rlim_max));
	} else if (signal == FL_SIGXCPU) {
		if (!fl_reason_cpu_time(reason, task, fl_read(task, signal, rlim[RLIMIT_CPU].rlim_cur)))
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

/* Why the kernel sends `signal` with `code` to `target`, if it does so on its own account. The current task: `task`, from fl_current(). */
static __always_inline void fl_find_reason(struct fl_reason *reason, struct task_struct *task,
					   struct kernel_siginfo *info, struct task_struct *target, u32 signal,
					   s32 code)
{
	struct task_struct *leader;

	if ((u64)info == FL_PRIV_INFO) {
		fl_reason_privileged(reason, task, target, signal);
	} else if ((u64)info == FL_NO_INFO) {
		fl_reason_plain(reason, task, info, target, signal);
	} else if (code == SI_TIMER && !fl_is_on_stack(task, info)) {
		fl_set_reason(reason, FL_REASON_TIMER);
	} else if (code > 0 && code <= FL_CLD_MAX && signal != FL_SIGCHLD && fl_read(task, flags) & PF_EXITING) {
		/* do_notify_parent(), kernel/signal.c. */
		leader = fl_read(task, group_leader);
		if ((u32)fl_read(leader, exit_signal) != signal ||
		    fl_read(leader, parent, tgid) != fl_read(target, tgid))
			return;
		fl_set_reason(reason, FL_REASON_CHILD_ENDED);
		fl_set_value(reason, fl_own(task, tgid));
	}
}

#endif
