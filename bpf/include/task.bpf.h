/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The numbers and names of a task, taken while it is still there.
 */
#ifndef FL_TASK_BPF_H
#define FL_TASK_BPF_H

#include "cgroup.bpf.h"

static __always_inline u32 fl_innermost_number(struct pid *pid)
{
	u32 level = fl_read(pid, level);
	struct upid *innermost = fl_upid(pid, level & 31);

	return fl_read(innermost, nr);
}

/* The current task's tgid in its innermost pid namespace; `task` is from fl_current(). */
static __always_inline u32 fl_pid_in_namespace(struct task_struct *task)
{
	struct signal_struct *signal = fl_own(task, signal);
	struct pid *pid =
		fl_read(signal, pids[PIDTYPE_TGID]); /* a number: old verifiers add no other number to a pointer */

	return fl_innermost_number(pid);
}

/* The process of the task at `of`, the current one: numbers, names, user, cgroup, namespaces. */
__noinline int fl_add_task(u64 of)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct task_struct *task = (void *)of;
	u64 id = bpf_get_current_pid_tgid();
	struct task_struct *leader = fl_read(task, group_leader);
	u32 level = fl_read(task, signal, pids[PIDTYPE_TGID], level);

	if (!record)
		return 1;
	record->pid = id >> 32;
	record->pid_in_namespace = fl_pid_in_namespace(fl_current());
	record->tid = (u32)id;
	record->ppid = fl_read(task, real_parent, tgid);
	record->uid = (u32)bpf_get_current_uid_gid();
	record->mount_namespace = fl_read(task, nsproxy, mnt_ns, ns.inum);
	record->cpu = bpf_get_smp_processor_id();
	fl_copy(record->comm, FL_COMM_BYTES, &leader->comm);
	fl_copy(record->thread_name, FL_COMM_BYTES, &task->comm);
	if (level)
		record->flags |= FL_IN_PID_NAMESPACE;
	if (fl_read(task, cred, user_ns, level))
		record->flags |= FL_IN_USER_NAMESPACE;
	if (fl_add_cgroup(of)) /* cut: unknown rather than half */
		record->cgroup_offset = record->cgroup_length = ~0U;
	return 0;
}

#endif
