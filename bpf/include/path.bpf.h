/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Paths of files, leaf first, appended to the record's strings.
 *
 * bpf_d_path() is allowed at few hooks and at none of ours, so that a path is a bounded walk of dentries and mounts.
 */
#ifndef FL_PATH_BPF_H
#define FL_PATH_BPF_H

#include "kernel.h"
#include "record.bpf.h"

/* The state of the walk of a path. In a map, so that the verifier sees one step and not all of them. */
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

#define OVERLAYFS_SUPER_MAGIC 0x794c7630 /* include/uapi/linux/magic.h */

/*
 * The path by which a process opened the file; for a mapped file of an overlay it is the overlay's path. Before v6.7 f_path has it; since then it
 * stands behind such a file. The bit of f_mode that marks such a file differs between kernels.
 */
static __always_inline struct path *fl_path_of(struct file *file)
{
	struct backing_file *backing = (void *)file;
	struct super_block *overlay;

	if (bpf_core_field_exists(backing->user_path)) {
		overlay = fl_read(backing, user_path.mnt, mnt_sb);
		if (overlay && fl_read(overlay, s_magic) == OVERLAYFS_SUPER_MAGIC &&
		    fl_read(backing, user_path.dentry, d_sb) == overlay)
			return (void *)((char *)file + bpf_core_field_offset(struct backing_file, user_path));
	}
	return (void *)((char *)file + bpf_core_field_offset(struct file, f_path));
}

/* The inode that this path leads to: f_inode, except for an overlay. */
static __always_inline struct inode *fl_inode_of(struct file *file)
{
	return fl_read(fl_path_of(file), dentry, d_inode);
}

/*
 * Appends the path of the struct file at `file`, leaf first, up to the root of its mount namespace: the process saw this path, unless it
 * had a root of its own (chroot). 0: whole; 1: cut.
 */
__noinline int fl_add_path(u64 file)
{
	struct fl_ascent *at = fl_scratch(&fl_ascents);
	struct path *from = fl_path_of((void *)file);

	if (!at)
		return 1;
	at->dentry = fl_read(from, dentry);
	at->mount = (void *)((char *)fl_read(from, mnt) - bpf_core_field_offset(struct mount, mnt));
	for (int i = 0; i < FL_PATH_DEPTH_MAX; i++) {
		int done = fl_path_step();

		if (done)
			return done < 0;
	}
	return 1;
}

#endif
