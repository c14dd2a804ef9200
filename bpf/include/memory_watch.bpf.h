/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The processes that are watched, and whether they may have executable memory that they have made themselves.
 */
#ifndef FL_MEMORY_WATCH_BPF_H
#define FL_MEMORY_WATCH_BPF_H

#include "filter.bpf.h"

/* The watched processes, by the host's tgid. Written when one is first seen; deleted when its last thread ends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FL_PROCESSES_MAX);
	__type(key, u32);
	__type(value, struct fl_process);
} fl_processes SEC(".maps");

/*
 * By tgid: may the process have made code? Never reset. It costs one load. Without it, each munmap() of any process would look in two
 * tables (20 ns each) to find that no executable memory goes.
 */
#define FL_MAKERS 4096 /* a power of 2 */
u8 fl_makers[FL_MAKERS] = {};

static __always_inline u8 *fl_maker(u32 tgid)
{
	u32 at = tgid & (FL_MAKERS - 1);

	barrier_var(at);
	return &fl_makers[at & (FL_MAKERS - 1)];
}

/* Processes that were there before us are not in this table: user space knows them. */
static __always_inline bool fl_may_have_code(void)
{
	return fl_config.older || *fl_maker(bpf_get_current_pid_tgid() >> 32);
}

static __always_inline void fl_watch(u32 tgid, u32 flags)
{
	struct fl_process process = {.flags = flags};

	if (bpf_map_update_elem(&fl_processes, &tgid, &process, BPF_ANY))
		fl_count(FL_LOST_WATCH_FULL);
}

/* The entry of the current task's process; NULL: it isn't watched. */
static __always_inline struct fl_process *fl_watched(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct fl_process *process = bpf_map_lookup_elem(&fl_processes, &tgid);

	if (process)
		return process;
	if (!fl_filter())
		return NULL;
	fl_watch(tgid, 0);
	return bpf_map_lookup_elem(&fl_processes, &tgid);
}

#endif
