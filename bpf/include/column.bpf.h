/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The counts of the groups by processor.
 *
 * Refuses to lose a count: where processors share columns, an event whose column is another one's counts without its processor.
 */
#ifndef FL_COLUMN_BPF_H
#define FL_COLUMN_BPF_H

#include "abi/crash.h"
#include "config.bpf.h"

/*
 * How many events each group has had, by processor: a bad processor shows. Sized as fl_groups. No atomics: signal_deliver comes with
 * interrupts off, a kprobe with preemption off, and neither happens in an interrupt.
 *
 * Where there may be many processors, this takes tens of MiB. There the loader makes it an array that they share: fl_config.columns, one after
 * the other, and one more (fl_count_in_column()).
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} fl_group_counts SEC(".maps");

/* Adds one to a count of this processor. A program that runs while this one is preempted may add to the same one. */
static __always_inline void fl_add_one(u64 *count)
{
	if (fl_config.is_preempted)
		__sync_fetch_and_add(count, 1);
	else
		*count += 1;
}

/* How long a column is. */
static __always_inline u32 fl_column_rows(void)
{
	return fl_config.groups + 1 + fl_config.rests + fl_config.sums;
}

/*
 * Counts one more event of this processor in the row, where processors share columns. In each row a column belongs to the first of them that
 * had an event: above the count is which one, as an odd number. What others have is added up in the last column, so that no count is lost, but
 * that of whom it is. Benign race: two of them that are first at once leave a number that is neither's.
 */
static __always_inline void fl_count_in_column(u32 row)
{
	u32 processor = bpf_get_smp_processor_id();
	u32 at = (processor & (fl_config.columns - 1)) * fl_column_rows() + row;
	u64 own = (u64)(processor * 2 + 1) << FL_COUNT_BITS, there;
	u64 *count = bpf_map_lookup_elem(&fl_group_counts, &at);

	if (!count)
		return;
	there = *count;
	if (there && there >> FL_COUNT_BITS != own >> FL_COUNT_BITS) {
		at = fl_config.columns * fl_column_rows() + row;
		count = bpf_map_lookup_elem(&fl_group_counts, &at);
		if (!count)
			return;
	}
	__sync_fetch_and_add(count, there ? 1 : own + 1);
}

/* Counts one more event of this processor in the row. */
static __always_inline void fl_count_in(u32 row)
{
	u64 *count;

	if (fl_config.columns) {
		fl_count_in_column(row);
		return;
	}
	count = bpf_map_lookup_elem(&fl_group_counts, &row);
	if (count)
		fl_add_one(count);
}

#endif
