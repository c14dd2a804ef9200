/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The user's stack of each fault, at a low cost: a walk of our own by frame pointers hashes it to one number, by which the fault is
 * counted, and the kernel's helper takes the stack once when that number is new.
 *
 * The helper costs 590 ns and more each time (6.18, 2026-11); the walk 25 for each frame.
 */
#ifndef FL_USER_STACK_BPF_H
#define FL_USER_STACK_BPF_H

#include "hash.bpf.h"
#include "mapping.bpf.h"

/*
 * The stacks, in buckets by the kernel's hash of their addresses. One process has one layout, so that equal stacks have one id. Sized
 * by the loader; user space deletes the stacks that it has read. Full, or two stacks with one bucket: counted as FL_LOST_STACK_FULL.
 */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__uint(value_size, FL_FAULT_FRAMES_MAX * sizeof(u64));
} fl_stacks SEC(".maps");

/* From the walk's hash to its place in fl_stacks. Full: the one that was used longest ago is forgotten, and taken once more. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, struct fl_stack_place);
} fl_stack_ids SEC(".maps");

/* The walk of this processor. */
struct fl_stack_walk {
	u64 busy; /* our program runs here: a fault meanwhile is its own */
	u64 count;
	u64 frames[FL_FAULT_FRAMES_MAX + 1]; /* one spare keeps the verifier's mask simple */
};
FL_SCRATCH(fl_stack_walks, struct fl_stack_walk);

/*
 * Walks the frames and returns their hash. Ends at the first frame that isn't there, or not above the one before: the stack
 * grows down.
 */
static __always_inline u64 fl_hash_frames(struct fl_stack_walk *walk, u64 ip, u64 sp, u64 fp)
{
	u64 hash = fl_mix(1, ip);
	u32 count = 1;

	walk->frames[0] = ip;
	for (u32 i = 1; i < FL_FAULT_FRAMES_MAX; i++) {
		u64 pair[2]; /* the caller's frame pointer, the return address */

		if (i >= fl_config.frames || fp < sp || fp & 7)
			break;
		if (bpf_probe_read_user(pair, sizeof(pair), (const void *)fp))
			break;
		pair[1] &= fl_code_mask();
		walk->frames[i & FL_FAULT_FRAMES_MAX] = pair[1];
		hash = fl_mix(hash, pair[1]);
		sp = fp + sizeof(pair);
		fp = pair[0];
		count = i + 1;
	}
	walk->count = count;
	return hash;
}

/* Makes sure that user space gets the stack that was just walked, with the hash `hash`, and the mappings of its frames. */
__noinline int fl_send_frames(u64 mm)
{
	struct fl_stack_walk *walk = fl_scratch(&fl_stack_walks);

	if (!walk)
		return 1;
	for (u32 i = 0; i < FL_FAULT_FRAMES_MAX; i++) {
		u64 address;

		if (i >= walk->count)
			break;
		address = walk->frames[i];
		/* A return address may be behind its mapping: so look up the call. */
		fl_send_mapping(mm, i ? address - 1 : address);
	}
	return 0;
}

static __always_inline void fl_keep_stack(void *context, u64 hash, u64 mm)
{
	struct fl_stack_walk *walk = fl_scratch(&fl_stack_walks);
	struct fl_stack_place place = {};
	long id = -1;

	fl_send_frames(mm);
	if (!walk || bpf_map_lookup_elem(&fl_stack_ids, &hash))
		return;
	place.innermost = walk->frames[0];
	place.count = walk->count;
	place.frames = FL_STACK_WHOLE;
	id = bpf_get_stackid(context, &fl_stacks, BPF_F_USER_STACK);
	if (id < 0) {
		/* Another stack has the bucket. Without its innermost frame it belongs in another one. */
		place.frames = FL_STACK_CALLERS;
		id = bpf_get_stackid(context, &fl_stacks, BPF_F_USER_STACK | 1);
	}
	if (id < 0 && walk->count == 1) {
		place.frames = FL_STACK_INNERMOST;
		id = 0;
	}
	if (id < 0) {
		fl_count(FL_LOST_STACK_FULL);
		return;
	}
	place.id = id;
	bpf_map_update_elem(&fl_stack_ids, &hash, &place, BPF_ANY);
}

#endif
