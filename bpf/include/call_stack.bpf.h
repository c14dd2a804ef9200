/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's stack of a call, kept once for all calls that have the same.
 *
 * The kernel gives each stack one bucket of a table, by a hash, and refuses the second that wants it (-EEXIST): of 100 stacks in 2048
 * buckets some two would never be seen. So a second and a third table take what the first one refused, by the same hash: no
 * stack is missing unless four want one bucket. Replacing (BPF_F_REUSE_STACKID) would give earlier calls another stack than theirs.
 */
#ifndef FL_CALL_STACK_BPF_H
#define FL_CALL_STACK_BPF_H

#include "abi/call.h"
#include "loss.bpf.h"

/* Kernel stacks repeat, in any process. Never freed; full: the call has no stack (FL_LOST_STACK). */
#define FL_CALL_STACKS(name)                                          \
	struct {                                                      \
		__uint(type, BPF_MAP_TYPE_STACK_TRACE);               \
		__uint(max_entries, FL_CALL_STACKS_MAX);              \
		__uint(key_size, sizeof(u32));                        \
		__uint(value_size, FL_CALL_FRAMES_MAX * sizeof(u64)); \
	} name SEC(".maps")

FL_CALL_STACKS(fl_call_stacks0);
FL_CALL_STACKS(fl_call_stacks1);
FL_CALL_STACKS(fl_call_stacks2);

/* The id of the current stack, as in fl_call.stack. Negative: none, which is counted. */
static __always_inline s32 fl_take_stack(void *context)
{
	u32 table = 0;
	long id = bpf_get_stackid(context, &fl_call_stacks0, 0);

	if (id == -EEXIST) {
		id = bpf_get_stackid(context, &fl_call_stacks1, 0);
		table = 1;
	}
	if (id == -EEXIST) {
		id = bpf_get_stackid(context, &fl_call_stacks2, 0);
		table = 2;
	}
	if (id >= 0)
		return (s32)id + table * FL_CALL_STACKS_MAX;
	fl_count(id == -EEXIST || id == -ENOMEM ? FL_LOST_STACK : FL_LOST_WALK);
	return -1;
}

#endif
