/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The size of a process that the kernel kills because memory is short.
 */
#ifndef FL_OOM_BPF_H
#define FL_OOM_BPF_H

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

#endif
