/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel is about to do for a signal, and whether the end of a process has been seen before. */
#ifndef FL_ENDING_BPF_H
#define FL_ENDING_BPF_H

#include "abi/crash.h"
#include "config.bpf.h"
#include "loss.bpf.h"
#include "signal.h"

/*
 * A process that is ending by a signal, and whose end is seen more than once: each of its threads gets here, or it is seen at the coredump,
 * too. The first one makes the record.
 */
struct fl_ending {
	u64 start_boottime_ns; /* of the leader: two processes with the same tgid differ by it */
	u32 tgid;
	u32 pad;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FL_ENDINGS_MAX);
	__type(key, struct fl_ending);
	__type(value, u8);
} fl_endings SEC(".maps");

static __always_inline void fl_set_ending(struct fl_ending *ending, struct task_struct *task)
{
	ending->tgid = bpf_get_current_pid_tgid() >> 32;
	ending->start_boottime_ns = fl_read(task, group_leader, start_boottime);
}

/* Is this the first time that the end of this process is seen? */
static __always_inline bool fl_is_first(struct task_struct *task)
{
	struct fl_ending ending = {};
	u8 seen = 1;

	fl_set_ending(&ending, task);
	/*
	 * Any other error does not show that it was seen: one record too many is better than none. The cast is for kernels before
	 * v6.4: they call the map's own function, which returns an int, and leave the upper half of the register as it was.
	 */
	return (s32)bpf_map_update_elem(&fl_endings, &ending, &seen, BPF_NOEXIST) != -EEXIST;
}

/*
 * Is the process about to end by a signal? do_group_exit() is called with the number of the signal before the kernel notes the end of the
 * group: by get_signal(), and before v5.16 by seccomp, right after the coredump.
 */
static __always_inline bool fl_is_ending(struct task_struct *task)
{
	struct fl_ending ending = {};

	if (fl_read(task, flags) & PF_SIGNALED)
		return true;
	fl_set_ending(&ending, task);
	return bpf_map_lookup_elem(&fl_endings, &ending);
}

/*
 * The signal that is ending the process, if its threads only get a SIGKILL without a sender. The kernel turns a fatal
 * signal that dumps no core (complete_signal(), kernel/signal.c) and SIGKILL itself into that; 0: this is something else
 * (another thread's crash, exit_group(), exec), or this process has been seen already.
 */
static __always_inline u32 fl_ending_signal(struct task_struct *task)
{
	u32 signal = fl_read(task, signal, group_exit_code) & 0x7f;

	if (!(fl_read(task, signal, flags) & SIGNAL_GROUP_EXIT))
		return 0;
	if (!signal || FL_DEFAULT_CORE & FL_BIT(signal) || !(fl_config.signals & FL_BIT(signal)))
		return 0;
	return fl_is_first(task) ? signal : 0;
}

/* Is a fatal one seen only where it is delivered, and to one thread? */
static __always_inline bool fl_is_seen_once(u32 signal)
{
	return FL_DEFAULT_CORE & ~fl_config.at_coredump & FL_BIT(signal);
}

/* The kernel's own action for a signal. */
static __always_inline u64 fl_handler(struct task_struct *task, u32 signal)
{
	/* Addressed by hand: an array of the kernel with an unknown index is no CO-RE access. action[] has 64 entries. */
	struct k_sigaction *action =
		(void *)((char *)fl_read(task, sighand) + bpf_core_field_offset(struct sighand_struct, action) +
			 (u64)((signal - 1) & 63) * bpf_core_type_size(struct k_sigaction));

	return (u64)fl_read(action, sa.sa_handler);
}

/* The same at signal_deliver, of the current task. */
static __always_inline u64 fl_handler_at(unsigned long long *ctx, struct task_struct *task, u32 signal)
{
	u32 other = signal ^ FL_SIGSEGV;

	barrier_var(other); /* or the verifier follows all that comes once more for this signal */
	/* Most faults: its address is known beforehand. */
	if (fl_has_typed_task() && !fl_has_typed_arguments() && !other)
		return (u64)task->sighand->action[FL_SIGSEGV - 1].sa.sa_handler;
	/* The kernel attaches no program to sched_process_exit that may look for a third argument. */
	if (fl_config.at_exit)
		return fl_handler(task, signal);
	return (u64)fl_argument((struct k_sigaction *)ctx[2], sa.sa_handler);
}

/* What the kernel is about to do: get_signal(), kernel/signal.c. Forced signals have been reset to SIG_DFL before. */
static __always_inline enum fl_disposition fl_dispose(struct task_struct *task, u32 signal, u64 handler)
{
	if (handler == FL_SIG_IGN)
		return FL_DISPOSED_IGNORED;
	if (handler != FL_SIG_DFL)
		return FL_DISPOSED_HANDLED;
	if ((FL_DEFAULT_IGNORE | FL_DEFAULT_STOP) & FL_BIT(signal))
		return FL_DISPOSED_IGNORED;
	/* The init of a pid namespace survives a signal that it has no handler for. */
	if (signal != FL_SIGKILL && fl_read(task, signal, flags) & SIGNAL_UNKILLABLE)
		return FL_DISPOSED_IGNORED;
	return FL_DISPOSED_FATAL;
}

/* After the group was counted, never before: so a reader that reads this number first sees no more events than all groups have. */
static __always_inline void fl_count_matched(enum fl_disposition disposition)
{
	if (disposition == FL_DISPOSED_FATAL || disposition == FL_DISPOSED_THREAD)
		fl_count(FL_FATAL);
	else if (disposition == FL_DISPOSED_CAUGHT)
		fl_count(FL_CAUGHT);
	else if (disposition == FL_DISPOSED_MAYBE_CAUGHT)
		fl_count(FL_MAYBE_CAUGHT);
	else
		fl_count(disposition == FL_DISPOSED_HANDLED ? FL_HANDLED : FL_IGNORED);
}

static __always_inline bool fl_is_death(enum fl_disposition disposition)
{
	return disposition == FL_DISPOSED_FATAL || disposition == FL_DISPOSED_CAUGHT ||
	       disposition == FL_DISPOSED_MAYBE_CAUGHT || disposition == FL_DISPOSED_THREAD;
}

#endif
