/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Handled faults at known places: each processor remembers the groups of some, and each thread that of its last fault. No frame is walked
 * for these, and no key is made.
 */
#ifndef FL_SITE_BPF_H
#define FL_SITE_BPF_H

#include "group.bpf.h"
#include "thread.bpf.h"

/* The group of a place where faults are handled. */
struct fl_site {
	u64 start_boottime_ns; /* of the process: two processes with the same tgid differ by it; 0: a free slot */
	u64 instruction_pointer;
	u64 what; /* tgid, si_code */
	u64 how;  /* signal, disposition, how often the process has exec'ed: compared by words */
	u64 moment; /* when the time and the pid of the group were last written, in ticks; with show_handled, when the stack was sent, ns */
	u32 group;
	u32 departures; /* of fl_departures, before the group was looked up */
};

/*
 * A cache of this processor: two places with the same slot replace each other, which costs a walk and no count. It is no hash map, because a
 * look-up would cost as much as all the rest. Sized by the loader: fl_config.sites.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FL_SITES_MAX);
	__type(key, u32);
	__type(value, struct fl_site);
} fl_sites SEC(".maps");

/* Counts one more event of a known place, which was last counted at `*jiffies`: memory that all processors write to is touched once a tick. */
static __always_inline void fl_add_known(u64 *jiffies, u32 id)
{
	u64 now = bpf_jiffies64();

	if (*jiffies != now) {
		*jiffies = now;
		fl_group_add(id, bpf_get_current_pid_tgid() >> 32);
		return;
	}
	fl_count_in(id);
}

/* The slot of a fault at this place; `now` gets the slot's content, except the group. NULL: there is none. */
static __always_inline struct fl_site *fl_site_of(struct fl_site *now, struct task_struct *task,
						  u64 instruction_pointer, s32 si_code, u32 signal,
						  enum fl_disposition disposition)
{
	struct task_struct *leader = fl_own(task, group_leader);
	u32 tgid = fl_own_tgid(task), slot;

	now->start_boottime_ns = fl_own(leader, start_boottime);
	now->instruction_pointer = instruction_pointer;
	now->what = tgid | (u64)(u32)si_code << 32;
	now->how = signal | (u64)disposition << 16 | (u64)fl_own(task, self_exec_id) << 32;
	/* The hash is simple, because each fault waits for it. */
	slot = (instruction_pointer ^ instruction_pointer >> 8 ^ tgid) & (fl_config.sites - 1);
	return bpf_map_lookup_elem(&fl_sites, &slot);
}

static __always_inline bool fl_is_site(const struct fl_site *there, const struct fl_site *now)
{
	return there->instruction_pointer == now->instruction_pointer &&
	       there->start_boottime_ns == now->start_boottime_ns && there->what == now->what &&
	       there->how == now->how && there->departures == fl_departed();
}

/* Counts a handled fault at a known place, whose group the thread, if it isn't NULL, then knows as well. False: the place isn't known. */
static __always_inline bool fl_count_at_site(struct fl_thread *thread, u64 owner, struct fl_site *site,
					     const struct fl_site *now)
{
	if (!site || !fl_is_site(site, now))
		return false;
	if (thread && thread->owner == owner) {
		thread->group = site->group;
		thread->departures = site->departures;
		thread->exec = now->how >> 32;
		thread->is_known = 1;
	}
	fl_add_known(&site->moment, site->group);
	return true;
}

#define FL_STACK_KEPT_NS 1000000000ULL

/*
 * Was the stack of the record under construction sent within the last second, with a fault of the same place and process? Then only its
 * innermost part is sent again, for a fault that comes ten thousand times a second leaves no room for others.
 */
static __always_inline bool fl_is_stack_sent(struct task_struct *task, u64 instruction_pointer)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	struct fl_site now, *site;

	if (!record || !unwind)
		return false;
	site = fl_site_of(&now, task, instruction_pointer, record->si_code, record->signal, record->disposition);
	if (!site || !fl_is_site(site, &now) || record->timestamp_ns - site->moment >= FL_STACK_KEPT_NS)
		return false;
	if (unwind->pages_max > FL_PAGES_AGAIN)
		unwind->pages_max = FL_PAGES_AGAIN;
	return true;
}

#endif
