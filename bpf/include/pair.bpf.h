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

/* Every pair of names that sent each other a signal. Full: counted as FL_LOST_PAIRS_FULL. */
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

/* The row of this processor for `key`; NULL: another key has it. */
static __always_inline struct fl_pair_count *fl_near_row(const union fl_pair_words *key)
{
	/* Odd numbers without a pattern; the products are independent of each other. */
	u64 hash = key->words[0] * 0x9e3779b97f4a7c15ULL + key->words[1] * 0xbf58476d1ce4e5b9ULL +
		   key->words[2] * 0x94d049bb133111ebULL + key->words[3] * 0xd6e8feb86659fd93ULL +
		   key->words[4] * 0xa0761d6478bd642fULL;
	u32 slot = hash >> 32 & (FL_NEAR_PAIRS_MAX - 1);
	struct fl_near_pair *near;
	const union fl_pair_words *there;

	if (!fl_config.near_pairs)
		return NULL;
	near = bpf_map_lookup_elem(&fl_near_pairs, &slot);
	if (!near)
		return NULL;
	if (!near->counts.count) {
		near->key = key->pair;
		return &near->counts;
	}
	there = (const void *)&near->key;
	for (u32 i = 0; i < 5; i++) {
		if (key->words[i] != there->words[i])
			return NULL;
	}
	return &near->counts;
}

/* Counts a signal by its sender and target. `sender` is from fl_current(). NULL: no sender, or no known target. */
static __always_inline void fl_count_pair(u32 number, enum fl_result result, struct task_struct *sender,
					  struct task_struct *target)
{
	union fl_pair_words key;
	struct fl_pair_count *row, fresh = {};
	u64 jiffies = bpf_jiffies64();

	/* signal, result and has_sender in one store: they are loaded as one word. */
	key.words[0] = (u8)number | (u64)(u8)result << 8 | (u64) !!sender << 16;
	key.words[1] = key.words[2] = key.words[3] = key.words[4] = 0;
	if (sender) {
		struct task_struct *leader = fl_own(sender, group_leader);

		fl_copy(key.pair.sender, FL_COMM_BYTES, &leader->comm);
	}
	if (target) {
		struct task_struct *leader = fl_read(target, group_leader);

		fl_copy(key.pair.target, FL_COMM_BYTES, &leader->comm);
	}
	row = fl_near_row(&key);
	if (!row)
		row = bpf_map_lookup_elem(&fl_pairs, &key);
	if (!row) {
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
	row->count += 1;
}

#endif
