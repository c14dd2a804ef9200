/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Describes a mapping and its file: range, permissions, offset; identity, path, and whether it was unlinked.
 */
#ifndef FL_REGION_BPF_H
#define FL_REGION_BPF_H

#include "config.bpf.h"
#include "path.bpf.h"
#include "vma.bpf.h"

/* The letters of /proc/PID/maps. VM_MAYSHARE: a shared mapping of a file that was opened for reading only lacks VM_SHARED. */
static __always_inline enum fl_permission fl_permissions_of(u64 vm_flags)
{
	return (vm_flags & VM_READ ? FL_READABLE : 0) | (vm_flags & VM_WRITE ? FL_WRITABLE : 0) |
	       (vm_flags & VM_EXEC ? FL_EXECUTABLE : 0) | (vm_flags & VM_MAYSHARE ? FL_SHARED : 0) |
	       (vm_flags & VM_GROWSDOWN ? FL_GROWS_DOWN : 0);
}

/* Where the mapping begins in its file, bytes. */
static __always_inline u64 fl_file_offset(struct vm_area_struct *vma)
{
	return (u64)fl_read(vma, vm_pgoff) << fl_page_shift;
}

/* The mapping, but for its file. */
static __always_inline void fl_place_vma(struct fl_vma *to, struct vm_area_struct *vma)
{
	to->vm_start = fl_read(vma, vm_start);
	to->vm_end = fl_read(vma, vm_end);
	to->file_offset = fl_file_offset(vma);
	to->permissions = fl_permissions_of(fl_read(vma, vm_flags));
	to->file = 0;
}

/* Was the file unlinked, as a memfd always is? d_unhashed(), include/linux/dcache.h. */
static __always_inline bool fl_is_unlinked(struct file *file)
{
	return !fl_read(fl_path_of(file), dentry, d_hash.pprev);
}

/* The identity of the file, and nothing else. */
static __always_inline void fl_identify_file(struct fl_file *to, struct file *file)
{
	struct inode *inode = fl_inode_of(file);

	to->inode = fl_read(inode, i_ino);
	to->device = fl_read(inode, i_sb, s_dev);
}

/* The name of the file: adds its path to the record's strings. */
static __always_inline void fl_name_file(struct fl_file *to, u32 strings_length, struct file *file)
{
	to->flags = fl_is_unlinked(file) ? FL_FILE_DELETED : 0;
	to->build_id_length = 0;
	to->path_offset = strings_length;
	if (fl_add_path((u64)file))
		to->flags |= FL_FILE_PATH_CUT;
}

#endif
