/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ring that brings samples to user space, and when to wake its reader.
 */
#ifndef FL_RING_BPF_H
#define FL_RING_BPF_H

#include "kernel.h"

/* Samples for user space. Sized by the loader if they are many or large. Full: counted by the kind of sample. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 19);
} fl_ring SEC(".maps");

#define FL_WAKE_INTERVAL_NS (FL_WAKE_INTERVAL_MS * 1000 * 1000ULL)
#define FL_WAKE_BYTES       (1 << 17)

/* When user space was last woken. Benign race: two CPUs may wake it twice, which costs a little and loses nothing. */
u64 fl_last_wake_ns = 0;

/*
 * A wake-up costs more than the sample (16-25 us against 2). The first sample after a pause wakes the reader. Those of the next 50 ms
 * don't, because the reader looks again by itself before it sleeps. A ring that fills up wakes it at once.
 */
static __always_inline u64 fl_wake_flags(u64 now)
{
	u64 last = fl_last_wake_ns;

	if (now - last < FL_WAKE_INTERVAL_NS && bpf_ringbuf_query(&fl_ring, BPF_RB_AVAIL_DATA) < FL_WAKE_BYTES)
		return BPF_RB_NO_WAKEUP;
	fl_last_wake_ns = now;
	return BPF_RB_FORCE_WAKEUP;
}

#endif
