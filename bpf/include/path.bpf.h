/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Paths of files, leaf first, appended to the record's strings.
 *
 * bpf_d_path() is allowed at few hooks and at none of ours, so a path is a bounded walk of dentries and mounts.
 */
#ifndef FL_PATH_BPF_H
#define FL_PATH_BPF_H

#include "kernel.h"
#include "record.bpf.h"

/* Where the walk of a path stands. In a map, so that the verifier sees one step and not all of them. */
struct fl_ascent {
	struct dentry *dentry;
	struct mount *mount;
};
FL_SCRATCH(fl_ascents, struct fl_ascent);

/* Appends one component and goes up, or from a mount's root to where it is mounted. 0: go on; 1: at the top; -1: cut. */
__noinline int fl_path_step(void)
{
	FL_RECORD *record = fl_scratch(&fl_records);
	struct fl_ascent *at = fl_scratch(&fl_ascents);
	struct dentry *dentry, *parent, *root;
	struct mount *mount, *up;

	if (!record || !at)
		return -1;
	dentry = at->dentry;
	mount = at->mount;
	parent = fl_read(dentry, d_parent);
	root = fl_read(mount, mnt.mnt_root);
	/* A memfd has a name, and is in no folder (d_alloc_pseudo(), fs/dcache.c). */
	if (dentry == parent && dentry != root)
		return fl_add_name((u64)fl_read(dentry, d_name.name)) ? -1 : 1;
	if (dentry == root) {
		up = fl_read(mount, mnt_parent);
		if (up == mount || !up)
			return 1;
		at->dentry = fl_read(mount, mnt_mountpoint);
		at->mount = up;
		return 0;
	}
	if (fl_add_name((u64)fl_read(dentry, d_name.name)))
		return -1;
	at->dentry = parent;
	return 0;
}

/*
 * Appends the path of the struct file at `file`, leaf first, up to the root of its mount namespace: that is how the
 * process saw it, less a chroot. 0: whole; 1: cut.
 */
__noinline int fl_add_path(u64 file)
{
	struct fl_ascent *at = fl_scratch(&fl_ascents);
	struct file *from = (void *)file;

	if (!at)
		return 1;
	at->dentry = fl_read(from, f_path.dentry);
	at->mount = (void *)((char *)fl_read(from, f_path.mnt) - bpf_core_field_offset(struct mount, mnt));
	for (int i = 0; i < FL_PATH_DEPTH_MAX; i++) {
		int done = fl_path_step();

		if (done)
			return done < 0;
	}
	return 1;
}

#endif
