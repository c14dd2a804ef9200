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
 * first key that uses it; another key with the same row goes to fl_pairs. So each key of a processor is in one place. A signal that is counted
 * here is counted nowhere else: user space adds the rows to FL_SIGNALS.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fl_near_table);
} fl_near_pairs SEC(".maps");

/* A key, and as it is compared: by words. */
union fl_pair_words {
	struct fl_pair pair;
	u64 words[5];
};

#define FL_NEAR_PAIRS_BITS 6
_Static_assert(FL_NEAR_PAIRS_MAX == 1 << FL_NEAR_PAIRS_BITS, "fl_near_row() chooses among all of them");

/* The row in `near`, this processor's, for `key`; NULL: another key has it. */
static __always_inline struct fl_pair_count *fl_near_row(struct fl_near_table *near, const union fl_pair_words *key)
{
	const u64 odd = 0x9e3779b97f4a7c15ULL;
	const union fl_pair_words *there;
	struct fl_near_pair *row;
	u64 hash;

	/* The upper bits of a product depend on all bits of its factors. Each signal waits for it, so that there are only two. */
	hash = (key->words[1] + key->words[2]) * odd;
	hash = (hash + key->words[3] + key->words[4] + key->words[0]) * odd;
	row = &near->rows[hash >> (64 - FL_NEAR_PAIRS_BITS)];
	if (!row->counts.count) {
		row->key = key->pair;
		return &row->counts;
	}
	there = (const void *)&row->key;
#pragma unroll
	for (u32 i = 0; i < 5; i++) {
		if (key->words[i] != there->words[i])
			return NULL;
	}
	return &row->counts;
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

/* The name of the current task, which signals itself. `argument`: the same task, as the hook has given it. */
static __always_inline void fl_name_self(union fl_pair_words *key, struct task_struct *task,
					 struct task_struct *argument)
{
	if (fl_knows_current())
		fl_own_comm(key->words + 1, fl_own(task, group_leader));
	else
		fl_argument_comm(key->words + 1, fl_argument(argument, group_leader));
	key->words[3] = key->words[1];
	key->words[4] = key->words[2];
}

static __always_inline u64 fl_pair_word(u32 number, enum fl_result result, bool has_sender)
{
	/* signal, result and has_sender in one store: they are loaded as one word. Each fits into its byte. */
	return number | (u64)result << 8 | (u64)has_sender << 16;
}

/* Notes the time of the row's last signal. */
static __always_inline void fl_date_pair(struct fl_pair_count *row)
{
	u64 jiffies = bpf_jiffies64();

	if (row->last_jiffies == jiffies)
		return;
	row->last_jiffies = jiffies;
	row->last_ns = bpf_ktime_get_boot_ns();
	if (!row->first_ns)
		row->first_ns = row->last_ns;
}

/* Counts a signal in its row in `near`, this processor's. False: another key has it, and nothing was done. */
static __always_inline bool fl_count_near_pair(const union fl_pair_words *key, struct fl_near_table *near)
{
	struct fl_pair_count *row = fl_near_row(near, key);

	if (!row)
		return false;
	fl_date_pair(row);
	barrier(); /* a row with a count has all the rest */
	row->count += 1;
	return true;
}

/* Counts a signal by its sender and target. `sender` is from fl_current(). NULL: no sender, or no known target. */
static __always_inline void fl_count_pair(u32 number, enum fl_result result, struct task_struct *sender,
					  struct task_struct *target)
{
	struct fl_near_table *near = fl_config.near_pairs ? fl_scratch(&fl_near_pairs) : NULL;
	struct fl_pair_count *row;
	union fl_pair_words key;

	key.words[0] = fl_pair_word(number, result, sender);
	fl_name_pair(&key, sender, target);
	if (near && fl_count_near_pair(&key, near))
		return;
	row = bpf_map_lookup_elem(&fl_pairs, &key);
	if (!row) {
		struct fl_pair_count fresh = {};

		/* Another CPU may have been first: then its row is found. */
		bpf_map_update_elem(&fl_pairs, &key, &fresh, BPF_NOEXIST);
		row = bpf_map_lookup_elem(&fl_pairs, &key);
	}
	if (row) {
		fl_date_pair(row);
		barrier(); /* as above */
		__sync_fetch_and_add(&row->count, 1);
	} else {
		fl_count(FL_LOST_PAIRS_FULL);
	}
	fl_count(FL_SIGNALS); /* after its pair: a reader that finds this number unchanged has seen all pairs */
}

#endif
