/* SPDX-License-Identifier: GPL-2.0-only */
/* Completes a record that was begun and sends it, with what its end may be in its place. */
#ifndef FL_SEND_BPF_H
#define FL_SEND_BPF_H

#include "backing.bpf.h"
#include "caught.bpf.h"
#include "describe.bpf.h"
#include "ending.bpf.h"
#include "ring.bpf.h"
#include "runtime_cxx.bpf.h"
#include "runtime_glibc.bpf.h"
#include "runtime_rust.bpf.h"
#include "stack_copy.bpf.h"

/*
 * May the record be sent, as far as room is concerned? What is no death may take half of the ring, so that deaths find the other half free,
 * whatever else happens on the host. Asked before anything is looked up for the record. Benign race: several processors may take the last
 * room of that half at once, which the ring's size allows for.
 */
static __always_inline bool fl_has_room(const struct fl_crash *record)
{
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	u64 wanted;

	if (!unwind || fl_is_death(record->disposition))
		return true;
	wanted = sizeof(*record) + unwind->pages_max * sizeof(struct fl_stack_page);
	if (wanted + bpf_ringbuf_query(&fl_ring, BPF_RB_AVAIL_DATA) <= fl_config.living_bytes)
		return true;
	fl_count(FL_LOST_RING_FULL);
	return false;
}

/*
 * Has the ring room for a record of this length? A sixteenth of it is for first crashes that no storm can imitate. Benign race: other processors
 * may take the room meanwhile, and the record is then counted as lost.
 */
static __always_inline bool fl_fits(u64 length)
{
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	u64 size = bpf_ringbuf_query(&fl_ring, BPF_RB_RING_SIZE);

	return !unwind || unwind->may_fill ||
	       bpf_ringbuf_query(&fl_ring, BPF_RB_AVAIL_DATA) + length < size - size / 16;
}

/* Has the thread called abort()? Where SIGABRT does not end it (process 1 of a pid namespace), abort() goes on to what raises another signal. */
static __always_inline bool fl_is_abort(const struct fl_crash *record)
{
	if (!(record->flags & FL_HAS_REGISTERS))
		return false;
	return record->signal == FL_SIGABRT ? record->si_code == SI_TKILL : fl_is_aborts_halt(record);
}

/* What the runtime of a language has said, or what leads to it: last, because paths need the room more. */
static __always_inline void fl_add_runtime_message(struct fl_crash *record, struct task_struct *task)
{
	bool is_abort = fl_is_abort(record);

	if (is_abort || record->disposition == FL_DISPOSED_CAUGHT)
		fl_add_go_message(bpf_get_current_task());
	if (!is_abort || record->go_panic.length)
		return;
	if (!(record->flags & FL_IS_GO))
		fl_add_stack_texts();
	fl_add_cxx_what(fl_thread_data(task));
}

/* Adds the mappings that the stack leads to. What there is no room for goes before the record. */
static __always_inline void fl_send_led_to(u64 mm)
{
	for (u32 i = 0; i <= FL_PARTS_MAX; i++) {
		if (!fl_add_led_to())
			break;
		fl_describe_modules(mm);
		fl_send_modules();
	}
}

/* Adds what is known of the memory of the current task. Global: verified once, and not for each sample of an end. */
__noinline int fl_add_memory(void)
{
	struct task_struct *task = fl_current();
	struct fl_crash *record = fl_scratch(&fl_records);
	struct mm_struct *mm = fl_read(task, mm);

	if (!record)
		return 0;
	for (u32 i = 0; i < FL_TEXTS_MAX; i++)
		record->texts[i].length = 0;
	if (!mm)
		return 0;
	fl_describe_memory((u64)mm);
	fl_describe_stack((u64)mm);
	fl_describe_refusal(record, (u64)mm);
	if (fl_config.stack_pages && record->frame_count) {
		if (fl_add_mappings((u64)mm))
			fl_send_led_to((u64)mm);
		fl_send_stack();
	}
	fl_describe_modules((u64)mm);
	return 0;
}

/* Completes the record and sends it. True: user space will get it. */
static __always_inline bool fl_send_record(struct fl_crash *record, struct task_struct *task)
{
	struct mm_struct *mm = fl_read(task, mm);
	u64 length;

	if (!fl_has_room(record))
		return false;
	fl_add_task(bpf_get_current_task());
	record->thread_start_ns = fl_read(task, start_boottime);
	if (record->flags & FL_HAS_REGISTERS)
		fl_add_code(record);
	if (mm) {
		if (record->flags & FL_HAS_REGISTERS && (record->signal == FL_SIGABRT || fl_is_aborts_halt(record)))
			fl_add_abort_message((u64)mm);
		fl_describe_exe((u64)mm);
	}
	fl_add_memory();
	if (mm)
		fl_add_runtime_message(record, task);
	length = __builtin_offsetof(struct fl_crash, strings) + record->strings_length;
	barrier_var(length); /* or the check is done on another copy, and old verifiers don't see that both are equal */
	if (length > sizeof(*record))
		return false;
	if (!fl_fits(length) || bpf_ringbuf_output(&fl_ring, record, length, fl_wake_flags(record->timestamp_ns))) {
		fl_count(FL_LOST_RING_FULL);
		return false;
	}
	if (!(record->flags & FL_IS_ALTERNATIVE))
		fl_count(FL_RECORDS);
	return true;
}

/* How a watched task ends, beside the record of the fault that may be the reason. In a map, because old verifiers' stacks are small. */
struct fl_end {
	u64 info;         /* struct kernel_siginfo; 0: none */
	u64 timestamp_ns; /* of the record, and of all that is sent with it */
	u32 signal;
	s32 code;
	u32 recalled; /* of fl_recall() */
	u32 group;    /* of the record */
	u32 serial;
	u32 is_sent; /* user space will get the record */
};
FL_SCRATCH(fl_ends, struct fl_end);

enum fl_next { FL_NEXT_NONE = 0, FL_NEXT_ALTERNATIVE, FL_NEXT_LAST };

/*
 * Begins the sample `step` of an end whose fault is to be proved, in the record under construction. First comes the end itself, then the faults
 * that were handled in the fault's handler, at last the fault that the record is of. All have the same thread and time.
 */
__noinline int fl_begin_next(u32 step)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	struct fl_end *end = fl_scratch(&fl_ends);
	u32 which = FL_NESTED_MAX - step, signal;

	if (!record || !unwind || !end)
		return FL_NEXT_NONE;
	/* A signal that isn't watched has no record of its own, as an exit. */
	signal = end->signal && fl_config.signals & FL_BIT(end->signal) ? end->signal : 0;
	if (!step) {
		end->timestamp_ns = record->timestamp_ns;
		unwind->sent_bytes = 0; /* what an end before it has sent is another stack's */
	}
	if (end->recalled >= FL_MAYBE_RECALLED && step) {
		if (!fl_recall_one(which, end->signal, end->code))
			return FL_NEXT_NONE;
		fl_add_frames((u64)fl_read(fl_current(), mm));
	} else if (end->recalled >= FL_MAYBE_RECALLED) {
		unwind->until = (record->signal_frame | (FL_PIECE_BYTES - 1)) + 1 + FL_PIECE_BYTES;
		fl_begin_record(end->info, signal, FL_DISPOSED_FATAL);
		record->end_code = end->code;
		fl_add_earlier(end->recalled - FL_MAYBE_RECALLED);
	}
	record->timestamp_ns = end->timestamp_ns;
	if (end->recalled < FL_MAYBE_RECALLED || which == end->recalled - FL_MAYBE_RECALLED) {
		record->group = end->group;
		record->group_serial = end->serial;
		return FL_NEXT_LAST;
	}
	record->flags |= FL_IS_ALTERNATIVE;
	fl_keep_key((u64)fl_read(fl_current(), mm));
	return FL_NEXT_ALTERNATIVE;
}

/*
 * Sends the record under construction. If it is that of a fault whose handler may have been left, what the end may be in its place goes before
 * it. True: user space will get all of it.
 */
static __always_inline bool fl_send_all(struct fl_crash *record, struct task_struct *task)
{
	for (u32 step = 0; step <= FL_NESTED_MAX; step++) {
		int next = fl_begin_next(step);

		if (next == FL_NEXT_NONE)
			continue;
		if (!fl_send_record(record, task))
			return false;
		if (next == FL_NEXT_LAST)
			return true;
	}
	return false;
}

/* The end of the current task, as fl_begin_next() needs it. */
static __always_inline void fl_note_end(u64 info, u32 signal, s32 code, u32 recalled)
{
	struct fl_end *end = fl_scratch(&fl_ends);

	if (!end)
		return;
	end->info = info;
	end->signal = signal;
	end->code = code;
	end->recalled = recalled;
	end->group = ~0U;
	end->is_sent = 0;
}

#endif
