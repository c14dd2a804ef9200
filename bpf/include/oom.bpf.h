/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The size of a process that the kernel kills because memory is short.
 */
#ifndef FL_OOM_BPF_H
#define FL_OOM_BPF_H

#include "config.bpf.h"
#include "kernel.h"

/* include/linux/mm_types_task.h */
#define FL_MM_FILEPAGES  0
#define FL_MM_ANONPAGES  1
#define FL_MM_SHMEMPAGES 3

/* False: it has no memory any more. */
static __always_inline bool fl_measure_memory(struct fl_memory *to, struct task_struct *task)
{
	struct mm_struct *mm = fl_read(task, mm);

	if (!mm)
		return false;
	to->total_vm = fl_read(mm, total_vm);
	if (bpf_core_field_exists(((struct mm_struct___counters *)0)->rss_stat[0].count)) {
		struct mm_struct___counters *of = (void *)mm;

		to->rss_file = fl_read(of, rss_stat[FL_MM_FILEPAGES].count);
		to->rss_anon = fl_read(of, rss_stat[FL_MM_ANONPAGES].count);
		to->rss_shmem = fl_read(of, rss_stat[FL_MM_SHMEMPAGES].count);
	} else {
		struct mm_struct___stat *of = (void *)mm;

		to->rss_file = fl_read(of, rss_stat.count[FL_MM_FILEPAGES].counter);
		to->rss_anon = fl_read(of, rss_stat.count[FL_MM_ANONPAGES].counter);
		to->rss_shmem = fl_read(of, rss_stat.count[FL_MM_SHMEMPAGES].counter);
	}
	return true;
}

/* Where the functions are that choose a process: the loader looks them up. */
const volatile struct fl_oom_code fl_oom_code = {};

#define FL_KILLER_FRAMES 24 /* of the kernel's stack: from the signal to these functions it has ten at most */

struct fl_kernel_stack {
	s64 bytes; /* of ips */
	u64 ips[FL_KILLER_FRAMES];
};
FL_SCRATCH(fl_killers, struct fl_kernel_stack);

#define FL_CGROUPS_MAX 16 /* levels of the hierarchy that are looked at */

/* A limit counts as reached if so many pages are left: a processor keeps some in store (MEMCG_CHARGE_BATCH), and others give some back meanwhile. */
#define FL_LIMIT_MARGIN(limit) (64 + (limit) / 32)

/* Is code from `start` up to `end` on the kernel's stack? Global: verified once, and not for what each other question has found. */
__noinline int fl_is_on_killer(u64 start, u64 end)
{
	struct fl_kernel_stack *stack = fl_scratch(&fl_killers);

	if (!stack)
		return 0;
	for (u32 i = 0; i < FL_KILLER_FRAMES; i++) {
		if ((s64)(i * sizeof(u64)) >= stack->bytes)
			break;
		if (stack->ips[i] >= start && stack->ips[i] < end)
			return 1;
	}
	return 0;
}

static __always_inline bool fl_is_by(const volatile struct fl_code_range *code)
{
	return fl_is_on_killer(code->start, code->end);
}

/* Adds the limit of the memory cgroup that is full, the one of `target` or the nearest above it, to the reason. */
static __always_inline void fl_add_full_cgroup(struct fl_reason *reason, struct task_struct *target)
{
	struct cgroup_subsys_state *css = NULL;
	u64 index;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id___fl, memory_cgrp_id___fl))
		return;
	index = bpf_core_enum_value(enum cgroup_subsys_id___fl, memory_cgrp_id___fl);
	fl_copy(&css, sizeof(css),
		(char *)fl_read(target, cgroups) + bpf_core_field_offset(struct css_set, subsys) + index * sizeof(css));
	for (u32 i = 0; i < FL_CGROUPS_MAX && css; i++) {
		struct mem_cgroup *cgroup = (void *)((char *)css - bpf_core_field_offset(struct mem_cgroup, css));
		u64 limit = fl_read(cgroup, memory.max), usage = fl_read(cgroup, memory.usage.counter);

		if (usage + FL_LIMIT_MARGIN(limit) >= limit) {
			reason->limit = limit << fl_page_shift;
			reason->value = usage << fl_page_shift;
			reason->cgroup = fl_read(css, cgroup, kn, id);
			reason->flags |= FL_REASON_HAS_LIMIT | FL_REASON_HAS_VALUE;
			return;
		}
		css = fl_read(css, parent);
	}
}

/* SIGKILL by the kernel: the functions on its stack prove that memory is short, and whose. `context`: the program's. */
static __always_inline void fl_reason_memory(void *context, struct fl_reason *reason, struct task_struct *target)
{
	struct fl_kernel_stack *stack = fl_scratch(&fl_killers);

	if (!stack || !fl_oom_code.any.start)
		return;
	stack->bytes = bpf_get_stack(context, stack->ips, sizeof(stack->ips), 0);
	if (fl_is_by(&fl_oom_code.asked) || !fl_is_by(&fl_oom_code.any))
		return;
	if (!fl_is_by(&fl_oom_code.cgroup)) {
		reason->kind = fl_is_by(&fl_oom_code.member) ? FL_REASON_CGROUP_GROUP : FL_REASON_HOST_MEMORY;
		return;
	}
	reason->kind = fl_is_by(&fl_oom_code.member) ? FL_REASON_CGROUP_GROUP : FL_REASON_CGROUP_MEMORY;
	fl_add_full_cgroup(reason, target);
}

#endif
