/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which tasks are watched: by pid, by process name, by cgroup, as a descendant of the watched command.
 *
 * Filters that were not asked for cost nothing (config.bpf.h). A task must pass all kinds that were asked for; within a kind one of its values.
 */
#ifndef FL_FILTER_BPF_H
#define FL_FILTER_BPF_H

#include "config.bpf.h"
#include "loss.bpf.h"

/* --pid: tgids. Written by the loader only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FL_PIDS_MAX);
	__type(key, u32);
	__type(value, u8);
} fl_pids SEC(".maps");

/* --cgroup: one cgroup v2 folder. Written by the loader only. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(u32));
} fl_cgroups SEC(".maps");

/*
 * The tgids of the watched command and its descendants. Written at fork, deleted when the last thread of a process ends:
 * a tgid can't be used again before that. Full: counted as FL_LOST_WATCH_FULL, and the new process is watched only as long as its
 * parent is in the table.
 *
 * From v7.0 on tracepoints are preemptible, and the kernel skips a run of a program that is on that processor already, in a task that was
 * preempted. A fork that was skipped is made up for when the child is first seen, by its parent, if that still lives; an exit, when the
 * number is given to another process.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FL_DESCENDANTS_MAX);
	__type(key, u32);
	__type(value, u8);
} fl_descendants SEC(".maps");

#define FL_NAMESPACE_LEVELS 33 /* MAX_PID_NS_LEVEL, include/linux/pid_namespace.h, and the host's */

/* The number in the pid namespace in which --pid was typed. 0: it isn't in that namespace. Global, so that it is verified once. */
__noinline int fl_pid_as_typed(u64 pid)
{
	struct pid *of = (void *)pid;
	u32 level = fl_read(of, level);

	for (u32 i = 0; i < FL_NAMESPACE_LEVELS; i++) {
		struct upid *at = fl_upid(of, i);

		if (i > level)
			break;
		if (fl_read(at, ns, ns.inum) == fl_filter_config.pid_namespace_inode)
			return fl_read(at, nr);
	}
	return 0;
}

/* The number of the process of the thread at `task`, as it would be typed. Without a walk if that namespace is the host's. */
static __always_inline u32 fl_typed_pid(struct task_struct *task)
{
	return fl_filter_config.pid_namespace_inode
		       ? (u32)fl_pid_as_typed((u64)fl_read(task, signal, pids[PIDTYPE_TGID]))
		       : (u32)fl_read(task, tgid);
}

/*
 * Is this the thread of ours that starts the watched command? Its children are the command; those of our other threads, which name what
 * died, are not.
 */
static __always_inline bool fl_is_starter(struct task_struct *task)
{
	u32 tid = fl_filter_config.pid_namespace_inode ? (u32)fl_pid_as_typed((u64)fl_read(task, thread_pid))
						       : (u32)fl_read(task, pid);

	return tid == fl_filter_config.command_starter;
}

/*
 * Is this a thread of ours that sends signals to nobody but the children that it has started to name what died? The thread that starts the
 * watched command hands signals on to it.
 */
static __always_inline bool fl_is_our_namer(struct task_struct *task)
{
	return fl_filter_config.own_pid && fl_typed_pid(task) == fl_filter_config.own_pid && !fl_is_starter(task);
}

/* Does the current task send a signal to a child of ours that names what died? Nobody has asked for that. */
static __always_inline bool fl_is_our_own(struct task_struct *target)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	/* Most senders are others than us, which needs no look at the target where we know our number as the host does. */
	if (!fl_filter_config.pid_namespace_inode && tgid != fl_filter_config.own_pid)
		return false;
	return (u32)fl_read(target, group_leader, real_parent, tgid) == tgid &&
	       fl_is_our_namer((void *)bpf_get_current_task());
}

/* The name of a process, its leader's comm, in two words: on old kernels a global function takes only scalars. */
union fl_name {
	u64 words[2];
	char text[FL_COMM_BYTES];
};

static __always_inline bool fl_read_process_name(union fl_name *name, struct task_struct *task)
{
	struct task_struct *leader = fl_read(task, group_leader);

	return !fl_copy(name->text, FL_COMM_BYTES, &leader->comm);
}

/* Which of these eight bytes are `byte`: the highest bit of each of them; perhaps of one behind such a byte, too. */
static __always_inline u64 fl_where(u64 bytes, u8 byte)
{
	const u64 ones = 0x0101010101010101ULL;
	u64 zero_where = bytes ^ byte * ones;

	return (zero_where - ones) & ~zero_where & ones << 7;
}

/* May the name have this letter, and the second one behind it? NUL: any. */
static __always_inline bool fl_may_have(const union fl_name *name, u8 letter, u8 second)
{
	u64 low = fl_where(name->words[0], letter), high = fl_where(name->words[1], letter), behind;

	if (!letter)
		return true;
	if (!second || !(low | high))
		return low | high;
	behind = fl_where(name->words[1], second);
	return (high & behind >> 8) | (low & (fl_where(name->words[0], second) >> 8 | behind << 56));
}

/* Is the text somewhere in the name? Most names don't even have its first letters. */
static __always_inline bool fl_contains(const union fl_name *name, const volatile char *wanted)
{
	u8 first = wanted[0];

	if (!fl_may_have(name, first, wanted[1]))
		return false;
	for (u32 start = 0; start < FL_COMM_BYTES - 1; start++) {
		u32 i;

		if (first && !name->text[start])
			break; /* before v5.17 the bytes behind it are of an earlier name of the process */
		for (i = 0; i < FL_COMM_BYTES - 1; i++) {
			char letter = wanted[i];

			if (!letter)
				return true;
			if (start + i >= FL_COMM_BYTES || name->text[(start + i) & (FL_COMM_BYTES - 1)] != letter)
				break;
		}
		if (i == FL_COMM_BYTES - 1)
			return true;
	}
	return false;
}

/* Is names[index] somewhere in this name? Global, so that it is verified once, not once for each. No scratch: any task may preempt it. */
__noinline int fl_is_named(u64 first, u64 second, u32 index)
{
	union fl_name name = {{first, second}};

	if (index >= FL_NAMES_MAX)
		return 0;
	return fl_contains(&name, fl_filter_config.names[index]);
}

/* Does one of the names fit this one? Global, as the one before, so that it has a stack of its own. */
__noinline int fl_filter_name(u64 first, u64 second)
{
	union fl_name name = {{first, second}};

	for (u32 i = 0; i < FL_NAMES_MAX; i++) {
		if (i >= fl_filter_config.name_count)
			break;
		if (fl_may_have(&name, fl_filter_config.names[i][0], fl_filter_config.names[i][1]) &&
		    fl_is_named(first, second, i))
			return 1;
	}
	return 0;
}

/* Is the process of the thread at `task` the watched command or its descendant? */
__noinline int fl_descends(u64 task, u32 tgid)
{
	struct task_struct *of = (void *)task;
	struct task_struct *parent;
	u8 watched = 1;
	u32 parent_tgid;

	if (bpf_map_lookup_elem(&fl_descendants, &tgid))
		return 1;
	/* A process that has ended has been forgotten, and must not come back. */
	if (!fl_read(of, signal, live.counter))
		return 0;
	parent = fl_read(of, real_parent);
	parent_tgid = fl_read(parent, tgid);
	if (!bpf_map_lookup_elem(&fl_descendants, &parent_tgid) && !fl_is_starter(parent))
		return 0;
	bpf_map_update_elem(&fl_descendants, &tgid, &watched, BPF_ANY); /* full: looked up again each time */
	return 1;
}

#define FL_CGROUP_LEVELS_MAX 256 /* above the watched cgroup: no limit below it */

/* 1 + the level of the watched cgroup in the hierarchy; 0: no task below it was seen yet. Benign race: all write the same. */
u32 fl_cgroup_level = 0;

/*
 * The number of the cgroup above that at `below`, or itself, at this level of the hierarchy, which is not below its own. Global: inlined into
 * a loop, the offset of a field that the kernel doesn't have is taken before the loop by clang 19, and the verifier refuses that.
 */
__noinline u64 fl_ancestor_id(u64 below, u32 level)
{
	struct cgroup *cgroup = (void *)below, *ancestor = NULL;
	u64 id = 0;

	if (!bpf_core_field_exists(cgroup->ancestors)) {
		fl_copy(&id, sizeof(id),
			(char *)cgroup + bpf_core_field_offset(struct cgroup, ancestor_ids) + (u64)level * sizeof(id));
		return id;
	}
	fl_copy(&ancestor, sizeof(ancestor),
		(char *)cgroup + bpf_core_field_offset(struct cgroup, ancestors) + (u64)level * sizeof(ancestor));
	return fl_read(ancestor, kn, id);
}

/*
 * Is the cgroup of the task at `task` the watched one, or below it? One look at the level of the watched one, as
 * bpf_current_task_under_cgroup() does it for the current task. Global: verified once.
 */
__noinline int fl_is_in_cgroup(u64 task)
{
	struct task_struct *of = (void *)task;
	struct cgroup *cgroup = fl_read(of, cgroups, dfl_cgrp);
	u32 level = fl_read(cgroup, level), known = fl_cgroup_level;

	if (known)
		return known <= level + 1 && fl_ancestor_id((u64)cgroup, known - 1) == fl_filter_config.cgroup;
	for (u32 i = 0; i < FL_CGROUP_LEVELS_MAX; i++) {
		if (i > level)
			break;
		if (fl_ancestor_id((u64)cgroup, i) == fl_filter_config.cgroup) {
			fl_cgroup_level = i + 1;
			return 1;
		}
	}
	return 0;
}

/* Is this task watched? `is_current`, a constant: it is the current one, for which the kernel has helpers. Cheapest question first. */
static __always_inline bool fl_filter_any(struct task_struct *task, bool is_current)
{
	if (!fl_filter_config.is_filtered)
		return true;
#define fl_subject (is_current ? (void *)bpf_get_current_task() : task)
	if (fl_filter_config.by_pid) {
		u32 pid = fl_typed_pid(fl_subject);

		if (!bpf_map_lookup_elem(&fl_pids, &pid))
			return false;
	}
	if (fl_filter_config.by_descent) {
		u32 tgid = is_current ? bpf_get_current_pid_tgid() >> 32 : fl_read(task, tgid);

		if (!fl_descends((u64)fl_subject, tgid))
			return false;
	}
	if (fl_filter_config.by_cgroup &&
	    !(is_current ? bpf_current_task_under_cgroup(&fl_cgroups, 0) == 1 : fl_is_in_cgroup((u64)task)))
		return false;
	if (fl_filter_config.name_count) {
		union fl_name name;

		if (is_current) {
			struct task_struct *current = fl_current();

			fl_own_comm(name.words, fl_own(current, group_leader));
		} else if (!fl_read_process_name(&name, task)) {
			return false;
		}
		if (!fl_filter_name(name.words[0], name.words[1]))
			return false;
	}
	return true;
#undef fl_subject
}

/* Is the current task watched? */
static __always_inline bool fl_filter(void)
{
	return fl_filter_any(NULL, true);
}

/* Is this task watched? */
static __always_inline bool fl_filter_task(struct task_struct *task)
{
	return fl_filter_any(task, false);
}

/* sched_process_fork, in the parent: a child of ours is the command, a child of a watched process is its descendant. */
static __always_inline void fl_follow_fork(struct task_struct *parent, struct task_struct *child)
{
	u32 parent_tgid = fl_read(parent, tgid);
	u32 tgid = fl_read(child, tgid);
	u8 watched = 1;

	if (tgid == parent_tgid) /* a thread */
		return;
	if (!fl_descends((u64)parent, parent_tgid) && !fl_is_starter(parent)) {
		bpf_map_delete_elem(&fl_descendants, &tgid); /* of a process whose end was not seen */
		return;
	}
	if (bpf_map_update_elem(&fl_descendants, &tgid, &watched, BPF_ANY))
		fl_count(FL_LOST_WATCH_FULL);
}

/* sched_process_exit: forgets the process with its last thread. The kernel has already subtracted this one from `live`. */
static __always_inline void fl_follow_exit(struct task_struct *task)
{
	u32 tgid = fl_read(task, tgid);

	if (fl_read(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&fl_descendants, &tgid);
}

#endif
