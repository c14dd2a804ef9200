/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shares: how much of a table each executable, user and cgroup has taken, so that none takes all of it. docs/development.md has the design.
 *
 * Written where a row is made, and by user space where one leaves; nothing here runs for an event whose row is there.
 * Refuses to keep a table of executables, which anybody could fill: each one has a cell in each of two rows of counters, found by a
 * hash that nobody can foresee, and what is in the lower one is what it has taken. Others in the same two cells make that too much, by some
 * rows in ten thousand cells.
 */
#ifndef FL_SHARE_BPF_H
#define FL_SHARE_BPF_H

#include "kernel.h"
#include "abi/crash.h"
#include "config.bpf.h"
#include "hash.bpf.h"

#define FL_SHARE_LEAST 64 /* of a table with fewer rows, each may take all */

/*
 * Rows that an executable may seem to have and is taken for new still, if its user can't have made it: executables that somebody makes share
 * its cells, one row each. If the user can have made it, there must be none, or a few executables would take what is kept for new ones.
 */
#define FL_SHARE_OTHERS 3

/*
 * Rows that were taken, by cell: FL_SHARE_ROWS x fl_config.share_cells, two in a value, because the kernel gives each value eight bytes.
 * Sized by the loader. Benign race: two CPUs at once may take one row too many.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} fl_shares_taken SEC(".maps");

/* Rows of those that have left. Written by user space only, so that neither undoes what the other has counted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} fl_shares_back SEC(".maps");

/* The counter of a cell in one of the two. NULL: there is no such cell. */
static __always_inline u32 *fl_share_at(void *shares, u32 cell)
{
	u32 at = cell / 2;
	u32 *both = bpf_map_lookup_elem(shares, &at);

	return both ? both + (cell & 1) : NULL;
}

static __always_inline u64 fl_share_hash(enum fl_share kind, u64 first, u64 second)
{
	return fl_mix(fl_mix(fl_mix(fl_config.seed, kind), first), second);
}

/* The cell of a hash in this row of counters. */
static __always_inline u32 fl_share_cell(u64 hash, u32 row)
{
	return ((u32)(hash >> row * 32) & (fl_config.share_cells - 1)) + row * fl_config.share_cells;
}

/* How many of `room` rows one executable, user or cgroup may have. */
static __always_inline u32 fl_share_of(u32 room, enum fl_share kind, u32 uid, u64 cgroup)
{
	u32 share = room - room / 4;

	if (kind == FL_SHARE_EXECUTABLE)
		share = room / 8;
	else if (kind == FL_SHARE_CGROUP) /* without one, all are in it */
		share = cgroup ? room / 2 : room;
	else if (kind == FL_SHARE_USER && uid)
		share = room / 2;
	return share < FL_SHARE_LEAST ? FL_SHARE_LEAST : share;
}

/* What was taken of the cell and has not come back. Global: verified once, for all who have a share. */
__noinline int fl_share_used(u32 cell)
{
	u32 *taken = fl_share_at(&fl_shares_taken, cell);
	u32 *back = fl_share_at(&fl_shares_back, cell);

	return taken && back ? *taken - *back : 0;
}

/* Are both cells at the share, or above it? Global, as the one before. */
__noinline int fl_share_is_taken(u32 one, u32 other, u32 share)
{
	return (u32)fl_share_used(one) >= share && (u32)fl_share_used(other) >= share;
}

/* Global, as the one before. */
__noinline int fl_share_add_to(u32 cell, s32 many)
{
	u32 *taken = fl_share_at(&fl_shares_taken, cell);

	if (taken)
		__sync_fetch_and_add(taken, many);
	return 0;
}

static __always_inline void fl_share_add(const u32 *cells, s32 many)
{
#pragma unroll
	for (u32 i = 0; i < FL_SHARES * FL_SHARE_ROWS; i++)
		fl_share_add_to(cells[i], many);
}

/* Has the executable of these two cells hardly any rows beside `own`? */
static __always_inline bool fl_is_new_executable(u32 one, u32 other, u32 is_others, u32 own)
{
	u32 most = own + (is_others ? FL_SHARE_OTHERS : 0);

	return (u32)fl_share_used(one) <= most || (u32)fl_share_used(other) <= most;
}

/* The current task's cgroup: its number; 0: it is in the root, or there are none. */
static __always_inline u64 fl_share_cgroup(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct cgroup *cgroup = fl_read(task, cgroups, dfl_cgrp);

	return cgroup && fl_read(cgroup, level) ? fl_read(cgroup, kn, id) : 0;
}

/*
 * The cells of whoever would have one more of `room` rows, for this key. False: one of them has its share already; a sixteenth more than
 * their shares is for executables that have no row, so that one which dies for the first time has its group in the middle of a storm of the
 * same user; and as much again for those that their user can't have made, which no storm of others that it has made can take (`is_others`).
 * `is_rest`: the table, each with counters of its own.
 */
static __always_inline bool fl_share_find(u32 *cells, const struct fl_group_key *key, u32 room, u32 is_rest,
					  u32 is_others)
{
	u64 cgroup = fl_share_cgroup();
	u32 more = 0, is_taken = 0;

#pragma unroll
	for (u32 kind = 0; kind < FL_SHARES; kind++) {
		u64 first = kind == FL_SHARE_EXECUTABLE ? key->exe_inode
			    : kind == FL_SHARE_CGROUP   ? cgroup
			    : kind == FL_SHARE_USER     ? key->uid
							: !!key->uid;
		u64 second = (u64)is_rest << 32 | (kind == FL_SHARE_EXECUTABLE ? key->exe_device : 0);
		u64 hash = fl_share_hash(kind, first, second);
		u32 share = fl_share_of(room, kind, key->uid, cgroup) + more;
		u32 one = fl_share_cell(hash, 0), other = fl_share_cell(hash, 1);

		cells[kind * FL_SHARE_ROWS] = one;
		cells[kind * FL_SHARE_ROWS + 1] = other;
		is_taken |= fl_share_is_taken(one, other, share);
		if (kind == FL_SHARE_EXECUTABLE && fl_is_new_executable(one, other, is_others, 0))
			more = is_others ? room / 8 : room / 16;
	}
	return !is_taken;
}

/*
 * Samples that were asked for in a second, by cell as above. Benign race: a few more are sent.
 */
struct fl_second {
	u32 second;
	u32 count;
};
#define FL_SECONDS 4096 /* in a row: a power of 2 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FL_SECONDS *FL_SHARE_ROWS);
	__type(key, u32);
	__type(value, struct fl_second);
} fl_sample_shares SEC(".maps");

static __always_inline struct fl_second *fl_second_of(u64 hash, u32 row, u32 second)
{
	u32 cell = ((u32)(hash >> row * 32) & (FL_SECONDS - 1)) + row * FL_SECONDS;
	struct fl_second *found = bpf_map_lookup_elem(&fl_sample_shares, &cell);

	if (found && found->second != second) {
		found->second = second;
		found->count = 0;
	}
	return found;
}

/* How many samples the owner of this hash has asked for in this second, before this one. */
__noinline int fl_ask_sample(u64 hash, u32 second)
{
	struct fl_second *one = fl_second_of(hash, 0, second), *other = fl_second_of(hash, 1, second);
	u32 asked;

	if (!one || !other)
		return 0;
	asked = one->count < other->count ? one->count : other->count;
	one->count += 1;
	other->count += 1;
	return asked;
}

#endif
