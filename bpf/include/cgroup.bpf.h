/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Paths of cgroups, leaf first, appended to the record's strings: into its cgroup_offset and cgroup_length.
 */
#ifndef FL_CGROUP_BPF_H
#define FL_CGROUP_BPF_H

#include "kernel.h"
#include "record.bpf.h"

#define FL_CGROUP_DEPTH_MAX 24

/* The cgroup v2 path of the task at `task`, leaf first. 0: whole; 1: cut. The root's name is empty and not added. */
__noinline int fl_add_cgroup(u64 task)
{
	FL_RECORD *record = fl_scratch(&fl_records);
	struct task_struct *from = (void *)task;
	struct kernfs_node *node = fl_read(from, cgroups, dfl_cgrp, kn);

	if (!record)
		return 1;
	record->cgroup_offset = record->strings_length;
	for (int i = 0; i < FL_CGROUP_DEPTH_MAX; i++) {
		struct kernfs_node *parent;

		if (bpf_core_field_exists(node->__parent))
			parent = fl_read(node, __parent);
		else
			parent = fl_read(node, parent);
		if (!parent) {
			record->cgroup_length = record->strings_length - record->cgroup_offset;
			return 0;
		}
		if (fl_add_name((u64)fl_read(node, name)))
			break;
		node = parent;
	}
	return 1;
}

#endif
