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
	u32 jiffies; /* their lower half: it comes again after 49 days and more */
	u16 si_code;
	u16 signal;
};

/*
 * The faults that a thread may be handling, the first one first: a handler may fault as well, and handle that. Each is deeper in the
 * stack than the one before it. A fault that isn't deeper shows that the thread has left the handlers of the earlier ones.
 * What each fault writes of two neighbours in an array is more than a cache line apart.
 */
struct fl_thread {
	u64 owner;    /* fl_owner_of(): which thread */
	u16 count;    /* 0: nothing is remembered */
	u16 is_known; /* the rest is of the fault faults[0], the only one */
	u32 group;
	u32 departures; /* of fl_departures, before the group was looked up */
	u32 exec;       /* how often the process had exec'ed */
	u64 jiffies;    /* when the time and the pid of the group were last written */
	struct fl_handled_fault faults[FL_NESTED_MAX];
};
_Static_assert(sizeof(struct fl_thread) == 152, "fl_thread has a hole");

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

/* And not as another program, before an exec. */
static __always_inline bool fl_does_recall(const struct fl_thread *thread, struct task_struct *task)
{
	return fl_may_recall(thread, task) && thread->exec == (u32)fl_own(task, self_exec_id);
}

/* Is it too old to be the end of its thread? */
static __always_inline bool fl_is_stale(const struct fl_handled_fault *fault)
{
	return (u32)bpf_jiffies64() - fault->jiffies > FL_STALE_TICKS;
}

/* Could its thread still be handling the last fault? */
static __always_inline bool fl_is_recent(const struct fl_thread *thread)
{
	u32 last = thread->count - 1;

	barrier_var(last); /* or the check is done on another copy */
	return last < FL_NESTED_MAX && !fl_is_stale(&thread->faults[last]);
}

#ifdef FL_TYPED

#define FL_THREAD_SLOTS 32 /* a power of 2; each takes 152 bytes */

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

/* The same of the current thread, `owner`; perhaps with nothing in it. */
static __always_inline struct fl_thread *fl_thread_with(struct task_struct *task, u64 owner)
{
	struct fl_thread *slot = fl_slot_of(owner);

	return slot && slot->owner == owner ? slot : bpf_task_storage_get(&fl_threads, task, NULL, 0);
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
 * v5.10 has no storage of tasks: each thread has two slots of these to choose from, by its number and by a hash of it. Where both are others',
 * which may be handling their faults still, it replaces one of them, whose end is then reported as it is. Sized by the loader, a power of 2.
 * Benign race: two threads that take a slot at once may leave a mixture, which no end matches.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fl_thread);
} fl_threads SEC(".maps");

/* By its number: threads of one process, whose numbers follow each other, are in each other's way nowhere. */
static __always_inline struct fl_thread *fl_slot_of(u64 owner)
{
	u32 slot = owner & (fl_config.threads - 1);

	return bpf_map_lookup_elem(&fl_threads, &slot);
}

/* The other one of the thread with this number, or owner: the upper bits of a product depend on all of its factors. */
static __always_inline struct fl_thread *fl_other_slot_of(u32 tid)
{
	u32 slot = ((tid << (32 - FL_TID_BITS)) * 0x9e3779b1U >> 18) & (fl_config.threads - 1);

	return bpf_map_lookup_elem(&fl_threads, &slot);
}

/* What may be remembered of the current thread: fl_may_recall() knows. */
static __always_inline struct fl_thread *fl_thread_of(struct task_struct *task)
{
	struct fl_thread *other = fl_other_slot_of(fl_own_tid(task));

	if (other && other->count && fl_is_of(other, fl_owner_of(task)))
		return other;
	return fl_slot_of(fl_own_tid(task));
}

/* The slot that the current thread, `owner`, has; if it has none, that of another one. */
static __always_inline struct fl_thread *fl_thread_with(struct task_struct *task, u64 owner)
{
	struct fl_thread *slot = fl_slot_of(owner);

	return slot && slot->owner == owner ? slot : fl_other_slot_of(owner);
}

static __always_inline struct fl_thread *fl_thread_for(struct task_struct *task, u64 owner)
{
	struct fl_thread *thread = fl_slot_of(owner), *other;

	if (!thread || thread->owner == owner)
		return thread;
	other = fl_other_slot_of(owner);
	if (other && other->owner == owner)
		return other;
	if (!thread->count || !fl_is_recent(thread))
		return thread;
	if (other && (!other->count || !fl_is_recent(other)))
		return other;
	/* Whether the other thread lives is not known: its fault is lost if it could still be handling it. */
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
