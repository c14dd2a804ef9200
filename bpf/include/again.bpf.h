/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The same handled fault once more: of the same thread, at the same place of the program and of its stack, as its last one. It is counted in
 * the group that the thread knows. A process may handle a million of them a second, so that each instruction here is one that others pay.
 */
#ifndef FL_AGAIN_BPF_H
#define FL_AGAIN_BPF_H

#include "caught.bpf.h"
#include "ending.bpf.h"
#include "site.bpf.h"

/* Counts a handled fault of the current task, if it is the same as the thread's last one and that one's group is known. False: it isn't. */
static __always_inline bool fl_count_again(struct task_struct *task, struct kernel_siginfo *info, u32 signal)
{
	u64 owner = fl_owner_of(task), now;
	struct fl_thread *thread = fl_thread_with(task, owner);
	struct fl_pointers pointers = {};
	struct fl_signal_head head = {};
	struct fl_handled_fault *last;
	u32 group;

	if (!thread || thread->count != 1 || !thread->is_known || thread->departures != fl_departed() ||
	    thread->exec != (u32)fl_own(task, self_exec_id))
		return false;
	last = thread->faults;
	if (last->signal != signal)
		return false;
	fl_read_pointers(&pointers, task, info); /* get_signal() has it on the stack */
	if (last->instruction_pointer != pointers.instruction_pointer || last->stack_pointer != pointers.stack_pointer)
		return false;
	fl_read_head(&head, info);
	if (last->si_code != head.code)
		return false;
	group = thread->group;
	barrier(); /* where another thread has taken the slot meanwhile, the group may be that one's */
	if (thread->owner != owner)
		return false;
	now = bpf_jiffies64();
	last->frame_pointer = pointers.frame_pointer;
	last->address = fl_untagged(head.address);
	last->jiffies = now;
	if (thread->jiffies != now) {
		thread->jiffies = now;
		fl_group_add(group, bpf_get_current_pid_tgid() >> 32);
	} else {
		fl_count_in(group);
	}
	return true;
}

/*
 * Counts what needs no more than that, before anything else is read, and by the arguments' own types: a signal of a task that isn't watched, and
 * where nothing but counts is wanted, the same handled fault once more. False: it is to be looked at as any other; then the task is watched if the
 * signal is seen once.
 */
static __always_inline bool fl_count_delivered(unsigned long long *ctx, struct task_struct *task, u64 first,
					       struct kernel_siginfo *info)
{
	bool is_handled;

	if (first > 64)
		return false;
	/* What is left out needs no look at its handler. */
	if (fl_filter_config.is_filtered && fl_is_seen_once(first) && !fl_filter()) {
		fl_count(FL_FILTERED);
		return true;
	}
	if (!fl_config.groups || fl_config.show_handled || (u64)info <= 1 || !(FL_FAULTS & FL_BIT(first)))
		return false;
	is_handled = fl_handler_at(ctx, task, first) > FL_SIG_IGN;
	if (!is_handled || (!fl_is_seen_once(first) && !fl_filter()))
		return false;
	if (!fl_count_again(task, info, first))
		return false;
	fl_count_matched(FL_DISPOSED_HANDLED);
	return true;
}

#endif
