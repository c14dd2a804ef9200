/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pairs: counts signals by the names of sender and target, by signal and by result, whether or not records of them are sent.
 *
 * Written where a signal is made, by one program that nothing of its own interrupts. User space sums the rows of all processors.
 */
#ifndef FL_PAIR_BPF_H
#define FL_PAIR_BPF_H

#include "filter.bpf.h"
#include "loss.bpf.h"

/*
 * Every pair of names that sent each other a signal. Where there may be many processors and fl_near_pairs is used, the loader makes it a
 * table that they share. Full: counted as FL_LOST_PAIRS_FULL.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, FL_PAIRS_MAX);
	__type(key, struct fl_pair);
	__type(value, struct fl_pair_count);
} fl_pairs SEC(".maps");

/*
 * The most frequent rows of this processor, by a cheap hash of the key: a look-up in fl_pairs costs 60 ns. A row belongs for ever to the
 * first key that uses it; another key with the same row goes to fl_pairs. So each key of a processor is in one place.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FL_NEAR_PAIRS_MAX);
	__type(key, u32);
	__type(value, struct fl_near_pair);
} fl_near_pairs SEC(".maps");

/* A key, and as it is compared: by words. */
union fl_pair_words {
	struct fl_pair pair;
	u64 words[5];
};

#define FL_NEAR_PAIRS_BITS 6
_Static_assert(FL_NEAR_PAIRS_MAX == 1 << FL_NEAR_PAIRS_BITS, "fl_near_row() chooses among all of them");

/* The row of this processor for `key`; NULL: another key has it. */
static __always_inline struct fl_pair_count *fl_near_row(const union fl_pair_words *key)
{
	const u64 odd = 0x9e3779b97f4a7c15ULL;
	u64 hash = key->words[0];
	struct fl_near_pair *near;
	const union fl_pair_words *there;
	u32 slot;

	if (!fl_config.near_pairs)
		return NULL;
#pragma unroll
	for (u32 i = 1; i < 5; i++)
		hash = hash * odd + key->words[i];
	/* The upper bits of a product depend on all of its factors. */
	slot = hash * odd >> (64 - FL_NEAR_PAIRS_BITS);
	near = bpf_map_lookup_elem(&fl_near_pairs, &slot);
	if (!near)
		return NULL;
	if (!near->counts.count) {
		near->key = key->pair;
		return &near->counts;
	}
	there = (const void *)&near->key;
#pragma unroll
	for (u32 i = 0; i < 5; i++) {
		if (key->words[i] != there->words[i])
			return NULL;
	}
	return &near->counts;
}

/* The names of both. A process often signals itself, and its name is then read once. */
static __always_inline void fl_name_pair(union fl_pair_words *key, struct task_struct *sender,
					 struct task_struct *target)
{
	struct task_struct *own = sender ? fl_own(sender, group_leader) : NULL;
	struct task_struct *other;

	if (sender)
		fl_own_comm(key->words + 1, own);
	else
		key->words[1] = key->words[2] = 0;
	if (!target) {
		key->words[3] = key->words[4] = 0;
		return;
	}
	if (target != sender) {
		other = fl_read(target, group_leader);
		if (other != own) {
			fl_copy(key->words + 3, FL_COMM_BYTES, other->comm);
			return;
		}
	}
	key->words[3] = key->words[1];
	key->words[4] = key->words[2];
}

/* Counts a signal by its sender and target. `sender` is from fl_current(). NULL: no sender, or no known target. */
static __always_inline void fl_count_pair(u32 number, enum fl_result result, struct task_struct *sender,
					  struct task_struct *target)
{
	union fl_pair_words key;
	struct fl_pair_count *row, *near;
	u64 jiffies = bpf_jiffies64();

	/* signal, result and has_sender in one store: they are loaded as one word. */
	key.words[0] = (u8)number | (u64)(u8)result << 8 | (u64) !!sender << 16;
	fl_name_pair(&key, sender, target);
	near = fl_near_row(&key);
	row = near ?: bpf_map_lookup_elem(&fl_pairs, &key);
	if (!row) {
		struct fl_pair_count fresh = {};

		/* Another CPU may have been first: then its row is found. */
		bpf_map_update_elem(&fl_pairs, &key, &fresh, BPF_NOEXIST);
		row = bpf_map_lookup_elem(&fl_pairs, &key);
	}
	if (!row) {
		fl_count(FL_LOST_PAIRS_FULL);
		return;
	}
	if (row->last_jiffies != jiffies) {
		row->last_jiffies = jiffies;
		row->last_ns = bpf_ktime_get_boot_ns();
		if (!row->first_ns)
			row->first_ns = row->last_ns;
	}
	barrier(); /* a row with a count has all the rest */
	if (near)
		near->count += 1;
	else
		__sync_fetch_and_add(&row->count, 1);
}

#endif
