/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Groups: counts all deaths of one bug in one place, whether or not samples of them are read.
 *
 * A fatal signal ends a process, which costs 45 us anyway: its frames are walked each time. A handled signal may come a million times a
 * second from one place: its group is remembered by that place (site.bpf.h), and no frame is walked again.
 * Nobody can take the table: a user, cgroup or executable with its share of it (share.bpf.h) gets no more groups, and user space has groups leave it that are
 * idle.
 * Refuses to lose a count: an event without a group of its own is counted in its rest, a row by executable, user, signal and code. Where
 * that finds no room either, it is counted in a sum, a row by signal and code; of these there are enough.
 */
#ifndef FL_GROUP_BPF_H
#define FL_GROUP_BPF_H

#include "column.bpf.h"
#include "filter.bpf.h"
#include "share.bpf.h"
#include "stack.bpf.h"

/*
 * The groups by id. Sized by the loader: fl_config.groups, one more, fl_config.rests, and fl_config.sums. An array, which user space maps
 * and reads without a call of the kernel (since v5.5). Never full: ids are handed out from fl_free_groups, fl_free_rests and fl_free_sums.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fl_group);
} fl_groups SEC(".maps");

/*
 * When each row had its last event: fl_group.last_ns once more, close together. User space maps it, and reads only rows that have changed. Sized
 * by the loader, as the groups.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} fl_group_times SEC(".maps");

/*
 * Ids that no group has, no rest, and no sum. Filled by the loader, and by user space with those of groups and rests that have left; taken
 * here. Empty: the event counts in a rest, or in a sum. Sums are enough for each signal and disposition, and never leave.
 */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, u32);
} fl_free_groups SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, u32);
} fl_free_rests SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, u32);
} fl_free_sums SEC(".maps");

/* Sums with a code. Benign race: each other CPU may make one too many, and the last sums without a code find no row: fl_groups[groups]. */
u32 fl_sums_by_code = 0;

/*
 * How often groups have left: what fl_sites remembers is older. Written by user space, before it waits for the programs that may know
 * an id of a group that leaves.
 */
u32 fl_departures SEC(".bss.departures") = 0;

/* What user space writes to fl_gate: a map that has nothing to say. */
struct fl_behind_gate_type {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} fl_behind_gate SEC(".maps");

/*
 * Never looked up by a program. A write to a map of maps returns when all programs have ended that ran before (maybe_wait_bpf_programs(),
 * kernel/bpf/syscall.c, since v5.0): so user space knows that nobody has the id of a group whose key it has deleted.
 *
 * What is written must be like what is declared here in all that a kernel compares (bpf_map_meta_equal(), kernel/bpf/map_in_map.c). From
 * v5.15 to v6.1 that depends on the type of its value also, in which a variable's section differs from an integer.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct fl_behind_gate_type);
} fl_gate SEC(".maps");

/*
 * From a key's hash to its id: the keys themselves are in fl_groups, and are compared there. As large as there are ids, so never full before
 * they are. User space deletes the hash of a group that leaves. Benign race: a look-up at that moment may find the entry of the next key that
 * takes its place. The event then finds no group.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, u32);
} fl_group_ids SEC(".maps");

/*
 * One stack for each group, in build-id form, taken when the group is new: its frames if no sample of it could be sent. Ids of this map
 * hash raw addresses, so that they identify a stack here and nothing else. Full, or another stack has the place: counted as
 * FL_LOST_STACK_FULL.
 */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(map_flags, BPF_F_STACK_BUILD_ID);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__uint(value_size, FL_EXEMPLAR_FRAMES * 32); /* struct bpf_stack_build_id */
} fl_stacks SEC(".maps");

/* Keys under construction: fl_group_key is too large for the stack of old verifiers' call chains. */
FL_SCRATCH(fl_group_keys, struct fl_group_key);

#define FL_GROUP_IS_NEW (1U << 31) /* beside the id: the group is new */

/* Counts one more event in the group. The clock is read once a tick: a handled fault takes less time than two reads of it. */
static __always_inline void fl_group_add(u32 id, u32 tgid)
{
	struct fl_group *group = bpf_map_lookup_elem(&fl_groups, &id);
	u64 jiffies = bpf_jiffies64();
	u64 *time;

	if (!group)
		return;
	fl_count_in(id);
	group->last_pid = tgid;
	if (group->last_jiffies == jiffies)
		return;
	group->last_jiffies = jiffies;
	group->last_ns = bpf_ktime_get_boot_ns();
	time = bpf_map_lookup_elem(&fl_group_times, &id);
	if (time)
		*time = group->last_ns;
}

/* Takes a free row for this key. `cells`: the shares of such rows. False: there is none. */
static __always_inline bool fl_take_row(const struct fl_group_key *key, u32 *cells, u32 *id, u32 is_others)
{
	bool is_rest = key->kind == FL_ROW_REST;

	if (key->kind == FL_ROW_SUM) {
		__builtin_memset(cells, 0, sizeof(*cells) * FL_SHARES * FL_SHARE_ROWS);
		if (key->has_code != FL_CODE_MADE_UP && fl_sums_by_code >= fl_config.sums_by_code)
			return false;
		return !bpf_map_pop_elem(&fl_free_sums, id);
	}
	if (!fl_share_find(cells, key, is_rest ? fl_config.rests : fl_config.groups, is_rest, is_others))
		return false;
	return !(is_rest ? bpf_map_pop_elem(&fl_free_rests, id) : bpf_map_pop_elem(&fl_free_groups, id));
}

static __always_inline void fl_give_back_row(const struct fl_group_key *key, const u32 *cells, u32 id)
{
	if (key->kind == FL_ROW_SUM) {
		bpf_map_push_elem(&fl_free_sums, &id, BPF_ANY);
		return;
	}
	fl_share_add(cells, -1);
	if (key->kind == FL_ROW_REST)
		bpf_map_push_elem(&fl_free_rests, &id, BPF_ANY);
	else
		bpf_map_push_elem(&fl_free_groups, &id, BPF_ANY);
}

static __always_inline bool fl_is_same_key(const struct fl_group_key *one, const struct fl_group_key *other)
{
	const u64 *words = (const void *)one, *others = (const void *)other;

#pragma unroll
	for (u32 i = 0; i < sizeof(*one) / sizeof(u64); i++) {
		/* A rest has the name of the process that was first, which is not in its key. */
		if (words[i] != others[i] &&
		    !(i >= __builtin_offsetof(struct fl_group_key, comm) / sizeof(u64) && one->kind == FL_ROW_REST))
			return false;
	}
	return true;
}

/* Nobody can choose keys with the same hash. Should there be two, the events of the later one find no row of its own. */
static __always_inline u64 fl_hash_key(const struct fl_group_key *key)
{
	const u64 *words = (const void *)key;
	u64 hash = fl_config.seed;

#pragma unroll
	for (u32 i = 0; i < sizeof(*key) / sizeof(u64); i++)
		hash = fl_mix(hash, words[i]);
	return hash;
}

#define FL_NO_ROW (~0U)

/* The row of this key: its id; FL_NO_ROW: it has none; fl_config.groups: another key has its place. */
static __always_inline u32 fl_find_row(const struct fl_group_key *key, const u64 *hash)
{
	u32 *there = bpf_map_lookup_elem(&fl_group_ids, hash), id;
	struct fl_group *group;

	if (!there)
		return FL_NO_ROW;
	id = *there;
	group = bpf_map_lookup_elem(&fl_groups, &id);
	return group && fl_is_same_key(key, &group->key) ? id : fl_config.groups;
}

/* A new row for the key in fl_group_keys: its id, or fl_config.groups where there is no room. */
__noinline int fl_new_row(void)
{
	struct fl_group_key *key = fl_scratch(&fl_group_keys);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	u32 cells[FL_SHARES * FL_SHARE_ROWS];
	struct fl_group *group;
	u32 other = fl_config.groups, id = 0;

	if (!key || !unwind || !fl_take_row(key, cells, &id, unwind->is_others))
		return other;
	group = bpf_map_lookup_elem(&fl_groups, &id);
	if (!group)
		return other;
	__builtin_memcpy(&group->key, key, sizeof(*key));
	__builtin_memcpy(&group->cells, cells, sizeof(cells));
	group->hash = unwind->key_hash;
	group->is_others = unwind->is_others;
	group->serial += 1;
	group->first_ns = bpf_ktime_get_boot_ns();
	group->last_ns = 0;
	group->last_jiffies = 0;
	group->samples = 0;
	group->sampled_ns = 0;
	group->stack_id = -1;
	group->build_id_length = 0;
	if (key->kind != FL_ROW_SUM)
		fl_share_add(cells, 1);
	else if (key->has_code != FL_CODE_MADE_UP)
		__sync_fetch_and_add(&fl_sums_by_code, 1);
	if (!(s32)bpf_map_update_elem(&fl_group_ids, &unwind->key_hash, &id, BPF_NOEXIST)) {
		fl_count(FL_GROUPS_MADE);
		return id | FL_GROUP_IS_NEW;
	}
	/* Another CPU was first. */
	if (key->kind == FL_ROW_SUM && key->has_code != FL_CODE_MADE_UP)
		__sync_fetch_and_add(&fl_sums_by_code, -1);
	fl_give_back_row(key, cells, id);
	id = fl_find_row(key, &unwind->key_hash);
	return id == FL_NO_ROW ? other : id;
}

/* The row of the key in fl_group_keys: its id, with FL_GROUP_IS_NEW where it is made now, or fl_config.groups where there is no room. */
__noinline int fl_row_of(u32 kind)
{
	struct fl_group_key *key = fl_scratch(&fl_group_keys);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	u32 id;

	if (!key || !unwind)
		return fl_config.groups;
	key->kind = kind;
	unwind->key_hash = fl_hash_key(key);
	id = fl_find_row(key, &unwind->key_hash);
	return id == FL_NO_ROW ? fl_new_row() : (int)id;
}

/* How often groups have left so far. */
static __always_inline u32 fl_departed(void)
{
	return *(volatile u32 *)&fl_departures;
}

/*
 * A cache of this processor: the ids of some groups, because a look-up in fl_group_ids costs as much as the walk of some frames. Two keys
 * with the same slot replace each other.
 */
struct fl_near_group {
	struct fl_group_key key;
	u32 id;
	u32 departures; /* of fl_departures, before the group was looked up */
};
#define FL_NEAR_GROUPS 16 /* a power of 2 */
struct fl_near_groups_type {
	struct fl_near_group slot[FL_NEAR_GROUPS];
};
FL_SCRATCH(fl_near_groups, struct fl_near_groups_type);

/* The group of the key in fl_group_keys, as fl_row_of() has it. */
static __always_inline u32 fl_group_of(struct fl_group_key *key)
{
	struct fl_near_groups_type *near = fl_scratch(&fl_near_groups);
	u32 departures = fl_departed(), id;
	struct fl_near_group *there;

	if (!near)
		return fl_row_of(FL_ROW_GROUP);
	there = &near->slot[(key->frames ^ key->frames >> 32) & (FL_NEAR_GROUPS - 1)];
	if (there->departures == departures && fl_is_same_key(&there->key, key))
		return there->id;
	id = fl_row_of(FL_ROW_GROUP);
	if (id != fl_config.groups) {
		there->key = *key;
		there->id = id & ~FL_GROUP_IS_NEW;
		there->departures = departures;
	}
	return id;
}

/* May a process have made up this code? It can send itself any number; these are the kernel's. */
static __always_inline bool fl_is_made_up(s32 si_code)
{
	return si_code < -6 || (si_code > 15 && si_code != SI_KERNEL);
}

/* The rest or the sum for an event of the key in fl_group_keys that finds no group: its id. */
static __always_inline u32 fl_rest_of(struct fl_group_key *key, struct task_struct *leader)
{
	u32 id;

	key->frames = 0;
	__builtin_memset(key->comm, 0, sizeof(key->comm));
	if (fl_is_made_up(key->si_code)) {
		key->si_code = 0;
		key->has_code = FL_CODE_MADE_UP;
	}
	id = fl_row_of(FL_ROW_REST);
	if (id == fl_config.groups) {
		key->exe_inode = 0;
		key->exe_device = 0;
		key->uid = 0;
		id = fl_row_of(FL_ROW_SUM);
		if (id == fl_config.groups) {
			key->si_code = 0;
			key->has_code = FL_CODE_MADE_UP;
			id = fl_row_of(FL_ROW_SUM);
		}
	} else if (id & FL_GROUP_IS_NEW) {
		struct fl_group *rest;
		u32 row = id & ~FL_GROUP_IS_NEW;

		/* In case that no sample of it can be sent. */
		rest = bpf_map_lookup_elem(&fl_groups, &row);
		if (rest)
			fl_copy(rest->key.comm, FL_COMM_BYTES, &leader->comm);
	}
	/* It has no place of its own that could be named. */
	return id & ~FL_GROUP_IS_NEW;
}

/* Makes the key of the record under construction, in fl_group_keys. */
__noinline int fl_make_key(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_group_key *key = fl_scratch(&fl_group_keys);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	struct task_struct *task = fl_current();
	struct task_struct *leader = fl_own(task, group_leader);
	struct mm_struct *of = (void *)mm;

	if (!record || !key || !unwind)
		return 1;
	key->frames = record->flags & FL_PLACE_COUNTS && record->frame_count ? unwind->hash : 0;
	key->exe_inode = 0;
	key->exe_device = 0;
	key->uid = (u32)bpf_get_current_uid_gid();
	unwind->is_others = 0;
	if (mm) {
		struct file *exe = fl_read(of, exe_file);
		struct inode *inode = exe ? fl_read(exe, f_inode) : NULL;
		u32 index = unwind->inode_index;

		barrier_var(index);
		if (inode && record->frame_count && (u64)inode == unwind->inode && index < FL_MODULES_MAX) {
			/* The walk has most often ended in the executable. */
			key->exe_inode = unwind->inodes[index];
			key->exe_device = unwind->devices[index];
		} else if (inode) {
			key->exe_inode = fl_inode_id(inode);
			key->exe_device = fl_read(inode, i_sb, s_dev);
		}
		if (inode)
			unwind->is_others = fl_read(inode, i_uid.val) != key->uid;
	}
	key->si_code = record->si_code;
	key->disposition = record->disposition;
	key->signal = record->signal;
	key->has_code = !!(record->flags & FL_HAS_CODE);
	key->kind = FL_ROW_GROUP;
	fl_copy(key->comm, FL_COMM_BYTES, &leader->comm);
	/* If the same signal ends the process, what has to be proved of the fault is likely to be the same. */
	if (record->disposition == FL_DISPOSED_MAYBE_CAUGHT)
		key->frames = fl_mix(key->frames, (u64)record->end_signal << 32 | (u32)record->end_code);
	return 0;
}

/* Keeps in the record under construction the key of the group that it would count in. */
__noinline int fl_keep_key(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_group_key *key = fl_scratch(&fl_group_keys);

	if (!record || !key || !fl_config.groups || fl_make_key(mm))
		return 1;
	__builtin_memcpy(&record->alternative, key, sizeof(*key));
	return 0;
}

/* Counts the record under construction in its group, rest or sum: its id, with FL_GROUP_IS_NEW where it is the first of a group. */
__noinline int fl_count_group(u64 mm)
{
	struct fl_group_key *key = fl_scratch(&fl_group_keys);
	struct task_struct *task = (void *)bpf_get_current_task();
	u32 id;

	if (!key || fl_make_key(mm))
		return fl_config.groups;
	id = fl_group_of(key);
	if (id == fl_config.groups)
		id = fl_rest_of(key, fl_read(task, group_leader));
	fl_group_add(id & ~FL_GROUP_IS_NEW, bpf_get_current_pid_tgid() >> 32);
	return id;
}

/* The build id of the record's executable, if it has been described. */
static __always_inline void fl_copy_build_id(struct fl_group *group)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_file *file;

	if (!record || !record->exe)
		return;
	file = fl_file_at(record, record->exe - 1);
	if (!file)
		return;
	group->build_id_length = file->build_id_length;
	__builtin_memcpy(group->build_id, file->build_id, FL_BUILD_ID_BYTES);
}

#endif
