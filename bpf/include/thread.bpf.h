/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is kept of each thread that has handled a fault: its last faults, and the group of the last one, so that the next one at the same
 * place is counted without a look-up of it.
 */
#ifndef FL_THREAD_BPF_H
#define FL_THREAD_BPF_H

#include "config.bpf.h"
#include "loss.bpf.h"

/* In ticks of 1 to 10 ms: if a handler has run for longer, the process does not end because of the fault. */
#define FL_STALE_TICKS 10000

/* A fault that a thread has handled. */
struct fl_handled_fault {
	u64 instruction_pointer;
	u64 stack_pointer;
	u64 frame_pointer;
	u64 address;
	u64 jiffies;
	s32 si_code;
	u32 signal;
};

/*
 * The faults that a thread may be handling, the first one first: a handler may fault as well, and handle that. Each is deeper in the
 * stack than the one before it. A fault that isn't deeper shows that the thread has left the handlers of the earlier ones.
 * What each fault writes of two neighbours in an array is more than a cache line apart.
 */
struct fl_thread {
	u64 owner;    /* fl_owner_of(): which thread */
	u32 count;    /* 0: nothing is remembered */
	u32 is_known; /* the rest is of the fault faults[0], the only one */
	u32 group;
	u32 departures; /* of fl_departures, before the group was looked up */
	u32 exec;       /* how often the process had exec'ed */
	u32 pad;
	u64 jiffies; /* when the time and the pid of the group were last written */
	struct fl_handled_fault faults[FL_NESTED_MAX];
};

#define FL_TID_BITS 22 /* PID_MAX_LIMIT */

/* A thread in one word: its number, and the time when it began, by which two threads with the same number differ. */
static __always_inline u64 fl_owner_of(struct task_struct *task)
{
	return fl_own(task, start_boottime) << FL_TID_BITS | fl_own_tid(task);
}

static __always_inline bool fl_is_of(const struct fl_thread *thread, u64 owner)
{
	return thread->count && thread->owner == owner;
}

/* Has the thread `task` handled a fault that may be its end? */
static __always_inline bool fl_may_recall(const struct fl_thread *thread, struct task_struct *task)
{
	return thread && fl_is_of(thread, fl_owner_of(task));
}

/* Could its thread still be handling the last fault? */
static __always_inline bool fl_is_recent(const struct fl_thread *thread)
{
	u32 last = thread->count - 1;

	barrier_var(last); /* or the check is done on another copy */
	return last < FL_NESTED_MAX && bpf_jiffies64() - thread->faults[last].jiffies <= FL_STALE_TICKS;
}

#ifdef FL_TYPED

#define FL_THREAD_SLOTS 32 /* a power of 2; each takes 184 bytes */

/*
 * A look-up of a thread's storage costs as much as half of the rest. So a thread whose slot here is free keeps its faults in it. It is free
 * if those of the thread that has had it are too old to be the end of that. Written by the thread that has it, on whatever processor that runs.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FL_THREAD_SLOTS);
	__type(key, u32);
	__type(value, struct fl_thread);
} fl_thread_slots SEC(".maps");

/* The other threads have a storage of their own: made at the first handled fault, gone when they end. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct fl_thread);
} fl_threads SEC(".maps");

static __always_inline struct fl_thread *fl_slot_of(u64 owner)
{
	u32 slot = owner & (FL_THREAD_SLOTS - 1);

	return bpf_map_lookup_elem(&fl_thread_slots, &slot);
}

/* What is remembered of the current thread. NULL: nothing. */
static __always_inline struct fl_thread *fl_thread_of(struct task_struct *task)
{
	u64 owner = fl_owner_of(task);
	struct fl_thread *slot = fl_slot_of(owner);

	return slot && fl_is_of(slot, owner) ? slot : bpf_task_storage_get(&fl_threads, task, NULL, 0);
}

/*
 * Makes a slot that is free the current thread's, with what it has in its storage. Benign race: its former thread may handle a fault at this
 * moment, after a long time without one. Then the slot has some of both, and no end matches it.
 */
static __always_inline bool fl_take_slot(struct fl_thread *slot, struct task_struct *task, u64 owner)
{
	u64 former = slot->owner;
	struct fl_thread *stored;

	if (slot->count && fl_is_recent(slot))
		return false;
	if (former != owner && __sync_val_compare_and_swap(&slot->owner, former, owner) != former)
		return false;
	slot->count = 0;
	slot->is_known = 0;
	stored = bpf_task_storage_get(&fl_threads, task, NULL, 0);
	if (stored && fl_is_of(stored, owner)) {
		__builtin_memcpy(slot->faults, stored->faults, sizeof(slot->faults));
		slot->count = stored->count;
		stored->count = 0;
	}
	return true;
}

/* What is remembered of the current thread, with room for a first fault. NULL: there is none, which is counted. */
static __always_inline struct fl_thread *fl_thread_for(struct task_struct *task, u64 owner)
{
	struct fl_thread *thread = fl_slot_of(owner);

	if (thread && (fl_is_of(thread, owner) || fl_take_slot(thread, task, owner)))
		return thread;
	thread = bpf_task_storage_get(&fl_threads, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread)
		fl_count(FL_LOST_FAULT);
	return thread;
}

#else

/*
 * v5.10 has no storage of tasks: one slot for all threads whose ids have the same lower bits. A later thread replaces an earlier one,
 * whose end is then reported as it is. Sized by the loader, a power of 2. Benign race: two of them that fault at once may leave a mixture,
 * which no end matches.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fl_thread);
} fl_threads SEC(".maps");

static __always_inline struct fl_thread *fl_slot_of(u64 owner)
{
	u32 slot = owner & (fl_config.threads - 1);

	return bpf_map_lookup_elem(&fl_threads, &slot);
}

static __always_inline struct fl_thread *fl_thread_of(struct task_struct *task)
{
	return fl_slot_of(fl_own_tid(task));
}

static __always_inline struct fl_thread *fl_thread_for(struct task_struct *task, u64 owner)
{
	struct fl_thread *thread = fl_slot_of(owner);

	/* Whether the other thread lives is not known: its fault is lost if it could still be handling it. */
	if (thread && thread->count && thread->owner != owner && fl_is_recent(thread))
		fl_count(FL_LOST_FAULT);
	return thread;
}

#endif

/* Is the thread on its alternate stack? Only handlers run there. */
static __always_inline bool fl_on_alternate_stack(struct task_struct *task, u64 stack_pointer)
{
	return stack_pointer - fl_own(task, sas_ss_sp) < fl_own(task, sas_ss_size);
}

#endif
