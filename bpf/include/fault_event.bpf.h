/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `--events`: records of single faults, as many as were asked for. Every fault is counted, with a record or without.
 */
#ifndef FL_FAULT_EVENT_BPF_H
#define FL_FAULT_EVENT_BPF_H

#include "mapping.bpf.h"

/* The second of CLOCK_BOOTTIME, and the events that were sent in it. Benign race: a few more than the rate. */
u64 fl_event_second = 0;
u64 fl_event_count = 0;

/* A fault while it is being counted. Not in a map: most of it lives in registers. */
struct fl_page_fault {
	struct task_struct *task;
	u32 tgid;
	u32 tid;
	u64 address;
	u64 ip; /* what follows only if it is asked for */
	u64 sp;
	u64 fp;
	u32 error_code;
	u32 mode;
};

/* The faults of this processor since its last event. */
FL_SCRATCH(fl_event_turns, u64);
FL_SCRATCH(fl_events, struct fl_fault_event);

/* Is it this fault's turn, and is there some budget left in this second? If not, that is counted. */
static __always_inline bool fl_may_tell(u64 now)
{
	u64 second = now / 1000000000ULL, *turn = fl_scratch(&fl_event_turns);

	if (fl_config.event_each > 1) {
		if (!turn)
			return false;
		*turn += 1;
		if (*turn < fl_config.event_each) {
			fl_count(FL_LOST_SAMPLED);
			return false;
		}
		*turn = 0;
	}
	if (!fl_config.event_rate)
		return true;
	if (fl_event_second != second) {
		fl_event_second = second;
		fl_event_count = 0;
	}
	if (fl_event_count >= fl_config.event_rate) {
		fl_count(FL_LOST_RATE);
		return false;
	}
	__sync_fetch_and_add(&fl_event_count, 1);
	return true;
}

static __always_inline void fl_send_fault(const struct fl_page_fault *fault, const struct fl_fault_key *key)
{
	struct fl_fault_event *event = fl_scratch(&fl_events);
	struct task_struct *task = fault->task;
	struct task_struct *leader = fl_read(task, group_leader);
	u64 now = bpf_ktime_get_boot_ns();

	if (!event || !fl_may_tell(now))
		return;
	fl_send_mapping((u64)fl_read(task, mm), fault->ip);
	event->kind = FL_SAMPLE_FAULT;
	event->tid = fault->tid;
	event->timestamp_ns = now;
	event->address = fault->address;
	event->instruction_pointer = fault->ip;
	event->key = *key;
	event->cpu = bpf_get_smp_processor_id();
	fl_copy(event->comm, FL_COMM_BYTES, &leader->comm);
	fl_copy(event->thread_name, FL_COMM_BYTES, &task->comm);
	fl_count(bpf_ringbuf_output(&fl_ring, event, sizeof(*event), fl_wake_flags(now)) ? FL_LOST_RING_FULL
											 : FL_EVENTS);
}

#endif
