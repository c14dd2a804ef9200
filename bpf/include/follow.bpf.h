/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The programs that watch the descendants of a command, for probes that do nothing else when a task begins or ends. Attached only if a
 * command is watched: Hook::follow() in src/probe/hook.rs.
 */
#ifndef FL_FOLLOW_BPF_H
#define FL_FOLLOW_BPF_H

#include "filter.bpf.h"

SEC("raw_tp/sched_process_fork")
int BPF_PROG(fl_fork, struct task_struct *parent, struct task_struct *child)
{
	fl_follow_fork(parent, child);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(fl_exit, struct task_struct *task)
{
	fl_follow_exit(task);
	return 0;
}

#endif
