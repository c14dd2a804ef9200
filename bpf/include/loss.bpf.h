/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counts what happened and what was lost: one per-CPU counter for each line of enum fl_counter (abi/PROBE.h).
 *
 * Written by every program on its own CPU, summed by user space. Never full, never reset. Atomic nevertheless: a program that an interrupt
 * or, from v7.0 on, another task interrupts between load and store would undo what the other one's programs have counted meanwhile.
 */
#ifndef FL_LOSS_BPF_H
#define FL_LOSS_BPF_H

#include "kernel.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FL_COUNTERS);
	__type(key, enum fl_counter);
	__type(value, u64);
} fl_counters SEC(".maps");

static __always_inline void fl_count_many(enum fl_counter which, u64 many)
{
	u64 *counter = bpf_map_lookup_elem(&fl_counters, &which);

	if (counter)
		__sync_fetch_and_add(counter, many);
}

static __always_inline void fl_count(enum fl_counter which)
{
	fl_count_many(which, 1);
}

#endif
