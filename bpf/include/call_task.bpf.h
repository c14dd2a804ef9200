/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tasks whose calls are recorded: the entry of each task, with its calls and which of them have not returned.
 *
 * Only its own task writes to an entry, on one CPU at a time. An interrupt of the task may write to it as well, and ends before the task
 * goes on. Benign race: if two calls are made at that moment, one may be missing.
 */
#ifndef FL_CALL_TASK_BPF_H
#define FL_CALL_TASK_BPF_H

#include "filter.bpf.h"

/*
 * By tid. The loader sets the size of a value and the number of entries. Full: the task that has made no call for the longest time is
 * forgotten, which may be one that has ended. FL_TASKS counts all tasks that there were.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fl_task);
} fl_tasks SEC(".maps");

/* A new entry: all zeros, as large as a value of fl_tasks. Never written. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fl_task);
} fl_blank SEC(".maps");

/* Initializes an entry: it is blank, or that of a thread that had the same number before. */
static __always_inline void fl_begin_task(struct fl_task *task, struct task_struct *current, u64 start)
{
	struct task_struct *leader = fl_read(current, group_leader);
	u64 ids = bpf_get_current_pid_tgid();

	task->start_boottime_ns = start;
	task->next = 0;
	task->tid = (u32)ids;
	task->pid = ids >> 32;
	task->open_count = 0;
	task->open_syscall = 0;
	task->settled = 0;
	task->doubted = 0;
	task->watched = 0;
	fl_copy(task->comm, FL_COMM_BYTES, &leader->comm);
	fl_count(FL_TASKS);
}

/* The entry of the current task, if it has one. */
static __always_inline struct fl_task *fl_find_task(struct task_struct *current)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct fl_task *task = bpf_map_lookup_elem(&fl_tasks, &tid);

	if (!task || task->start_boottime_ns != fl_read(current, start_boottime))
		return NULL;
	return task;
}

/*
 * The entry of the current task, which is made if there is none. NULL: the task isn't watched and the function is not recorded for
 * `anyone`, or the task has no number of its own, as the idle task of each CPU.
 */
static __always_inline struct fl_task *fl_take_task(struct task_struct *current, bool anyone)
{
	u32 tid = (u32)bpf_get_current_pid_tgid(), zero = 0;
	struct fl_task *task;
	bool watched;
	u64 start;
	void *blank;

	if (!tid)
		return NULL;
	task = bpf_map_lookup_elem(&fl_tasks, &tid);
	if (task && (task->watched || anyone) && task->start_boottime_ns == fl_read(current, start_boottime))
		return task;
	watched = fl_filter();
	if (!watched && !anyone) {
		fl_count(FL_FILTERED);
		return NULL;
	}
	if (!task) {
		blank = bpf_map_lookup_elem(&fl_blank, &zero);
		if (!blank)
			return NULL;
		bpf_map_update_elem(&fl_tasks, &tid, blank, BPF_NOEXIST);
		task = bpf_map_lookup_elem(&fl_tasks, &tid);
		if (!task) {
			fl_count(FL_LOST_TASK_FULL);
			return NULL;
		}
	}
	start = fl_read(current, start_boottime);
	if (task->start_boottime_ns != start)
		fl_begin_task(task, current, start);
	task->watched = watched;
	return task;
}

/* The call with this sequence, or the place for it. */
static __always_inline struct fl_call *fl_call_at(struct fl_task *task, u64 sequence)
{
	/* The loader's number is a constant for the verifier. */
	u32 place = (u32)sequence & (fl_config.calls - 1);

	return (struct fl_call *)((char *)(task + 1) + (u64)place * sizeof(struct fl_call));
}

/*
 * The task makes a system call, so the one before has returned, and what began in it, whether their ends were seen or not: the
 * kernel leaves programs out, and jumps over those at the end of a call, and rt_sigreturn never comes back to its tracepoint.
 */
static __always_inline void fl_settle(struct fl_task *task, u64 sequence)
{
	if (task->open_syscall) {
		u32 kept = task->open_syscall - 1;

		fl_count_many(FL_LOST_END, task->open_count - kept);
		task->open_count = kept;
	}
	task->open_syscall = task->open_count + 1;
	task->settled = sequence;
}

/* How many calls behind the innermost one that has not been seen to end the call with this sequence begins; 0: there is none. */
static __always_inline u32 fl_behind_open(const struct fl_task *task, u64 sequence)
{
	u32 place = (task->open_count - 1) & (FL_OPEN_MAX - 1);
	u64 behind;

	barrier_var(place);
	if (!task->open_count || place >= FL_OPEN_MAX)
		return 0;
	behind = sequence - task->open[place].sequence;
	return behind > 0xffffffff ? 0xffffffff : (u32)behind;
}

/* The call has begun: keep it until its end. */
static __always_inline void fl_push_open(struct fl_task *task, u64 sequence, u32 function)
{
	u32 count = task->open_count;
	u32 place = count & (FL_OPEN_MAX - 1);
	struct fl_open *open;

	barrier_var(place);
	if (place >= FL_OPEN_MAX)
		return;
	if (count >= FL_OPEN_MAX)
		fl_count(FL_LOST_NESTED);
	open = &task->open[place];
	open->sequence = sequence;
	open->function = function;
	task->open_count = count + 1;
}

/*
 * The innermost call of this function that has not returned: its sequence. It is forgotten, and what began in it, which has ended as
 * well. False: none.
 */
static __always_inline bool fl_pop_open(struct fl_task *task, u32 function, u64 *sequence)
{
	u32 count = task->open_count;
	u32 before = count;

	for (u32 i = 0; i < FL_OPEN_MAX; i++) {
		u32 place = (count - 1) & (FL_OPEN_MAX - 1);

		if (!count)
			return false;
		count--;
		barrier_var(place);
		if (place >= FL_OPEN_MAX)
			return false;
		if (task->open[place].function == function) {
			*sequence = task->open[place].sequence;
			task->open_count = count;
			if (task->open_syscall > count)
				task->open_syscall = 0;
			if (before - count > 1)
				fl_count_many(FL_LOST_END, before - count - 1);
			return true;
		}
	}
	return false;
}

#endif
