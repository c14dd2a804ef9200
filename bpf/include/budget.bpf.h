/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which events of a group have a sample: the first ones, then one after an interval that doubles each time, and of all groups so many in a
 * second.
 *
 * Nobody can take them all: a part of each second's samples is for executables, and for users, that have had none in it, and a few more are
 * for executables that die for the first time.
 * Refuses to leave one out in silence: a sample that would be shown and isn't sent is counted.
 */
#ifndef FL_BUDGET_BPF_H
#define FL_BUDGET_BPF_H

#include "group.bpf.h"

/* The second of CLOCK_BOOTTIME, and the samples that were sent in it. Benign race: a few more than the rate. */
u64 fl_sample_second = 0;
u64 fl_sample_count = 0;
u64 fl_first_count = 0; /* beyond the rate, of executables that died for the first time */

/*
 * How many samples all together may have sent in this second before this one of the group. The last quarter of fl_config.sample_rate is for
 * executables that have asked for none in it, and of that a half for users that have not either: whatever others do, a first crash has its
 * sample.
 */
static __always_inline u32 fl_rate_for(const struct fl_group *group, u64 second)
{
	const struct fl_group_key *key = &group->key;
	u32 rate = fl_config.sample_rate;
	bool of_executable = fl_ask_sample(fl_share_hash(FL_SHARE_EXECUTABLE, key->exe_inode, key->exe_device), second);
	bool of_user = fl_ask_sample(fl_share_hash(FL_SHARE_USER, key->uid, 0), second);

	return of_executable ? rate - rate / 4 : of_user ? rate - rate / 8 : rate;
}

/* Is it hardly more than the only row of its executable? Then this dies for the first time, as far as the table knows. */
static __always_inline bool fl_is_first_of_executable(const struct fl_group *group)
{
	const u32 *cells = group->cells + FL_SHARE_EXECUTABLE * FL_SHARE_ROWS;

	return group->key.kind != FL_ROW_SUM && !group->samples &&
	       fl_is_new_executable(cells[0], cells[1], group->is_others, 1);
}

/* Is it of an executable that dies for the first time and that its user can't have made? Others can't make so many of them as to be in its way. */
static __always_inline bool fl_is_first_of_others(const struct fl_group *group)
{
	return group->is_others && fl_is_first_of_executable(group);
}

/*
 * May a sample of an executable that dies for the first time be sent beyond the rate? Twice the rate again for any, and as much for those
 * that their user can't have made: whoever makes thousands of executables a second can't take that.
 */
static __always_inline bool fl_take_first(const struct fl_group *group)
{
	u64 most = (u64)fl_config.sample_rate * (group->is_others ? 4 : 2);

	if (!fl_is_first_of_executable(group) || fl_first_count >= most)
		return false;
	__sync_fetch_and_add(&fl_first_count, 1);
	return true;
}

/* A group that goes on and on has a sample after this time at least, unless the user wants fewer. */
#define FL_SAMPLE_DAY_NS (24 * 3600 * 1000000000ULL)

/* How long after its last sample the group may have another one, once it has had the first ones. */
static __always_inline u64 fl_sample_wait(const struct fl_group *group)
{
	u32 doubled = group->samples - fl_config.sample_first;
	u64 wait = fl_config.sample_interval_ns;

	if (wait >= FL_SAMPLE_DAY_NS)
		return wait;
	wait <<= doubled < 16 ? doubled : 16;
	return wait < FL_SAMPLE_DAY_NS ? wait : FL_SAMPLE_DAY_NS;
}

/* May another sample of the group be sent? If not, that is counted. `is_due`: the sample would be shown. */
static __always_inline bool fl_take_budget(struct fl_group *group, u64 now, bool is_due)
{
	u64 second = now / 1000000000ULL;

	/* One sample is sent in any case: it names the group. */
	if (!is_due)
		return group->samples == 0;
	if (!fl_config.sample_first && !fl_config.sample_rate)
		return true;
	if (fl_config.sample_first && group->samples >= fl_config.sample_first &&
	    now - group->sampled_ns < fl_sample_wait(group)) {
		fl_count(FL_LOST_BUDGET);
		return false;
	}
	if (!fl_config.sample_rate)
		return true;
	if (fl_sample_second != second) {
		fl_sample_second = second;
		fl_sample_count = 0;
		fl_first_count = 0;
	}
	if (fl_sample_count < fl_rate_for(group, second)) {
		__sync_fetch_and_add(&fl_sample_count, 1);
		return true;
	}
	if (fl_take_first(group))
		return true;
	fl_count(FL_LOST_BUDGET);
	return false;
}

#endif
