/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What lies at an address: its class for each fault that is counted by it, and all about it once for user space.
 */
#ifndef FL_MAPPING_BPF_H
#define FL_MAPPING_BPF_H

#include "filter.bpf.h"
#include "path.bpf.h"
#include "vma.bpf.h"

/* Mappings for user space, about 200 bytes each, and events. Sized by the loader. Full: counted by what found no room. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} fl_ring SEC(".maps");

/* Mappings that user space has been told of. Full: the one that was looked up longest ago is told once more. */
struct fl_told {
	u64 vm_start;
	u32 tgid;
	u32 pad;
};
struct fl_told_as {
	u64 vm_end;
	u64 inode;
	u64 vm_pgoff;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FL_TOLD_MAX);
	__type(key, struct fl_told);
	__type(value, struct fl_told_as);
} fl_told_mappings SEC(".maps");

/* What fl_find_place() has found. In a map: a global function returns one number. */
struct fl_place {
	struct vm_area_struct *vma; /* NULL: none */
	u64 vm_start;
	u64 inode; /* with FL_BY_FILE; 0: no file */
	u32 device;
	u32 pad;
};
FL_SCRATCH(fl_places, struct fl_place);

/*
 * The first mapping above the hole that was just found, if the stack will grow down to `address`: expand_stack(), mm/mmap.c.
 * That it may not because of its limit is known here, too.
 */
static __always_inline struct vm_area_struct *fl_growing_stack(u64 mm, u64 address)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct vm_area_struct *below = NULL, *above = NULL;

	fl_vma_neighbours(mm, &below, &above);
	if (!above || !(fl_read(above, vm_flags) & VM_GROWSDOWN))
		return NULL;
	if (fl_read(above, vm_end) - address > fl_read(task, signal, rlim[RLIMIT_STACK].rlim_cur))
		return NULL;
	return above;
}

static __always_inline enum fl_vma_class fl_class_of_file(struct inode *inode, u64 flags)
{
	return flags & VM_SHARED && fl_read(inode, i_sb, s_magic) == TMPFS_MAGIC ? FL_VMA_SHARED : FL_VMA_FILE;
}

/* Memory without a file. The heap as /proc/PID/maps has it: fs/proc/task_mmu.c. */
static __always_inline enum fl_vma_class fl_class_of_memory(struct mm_struct *mm, struct vm_area_struct *vma, u64 start,
							    u64 flags)
{
	if (flags & VM_GROWSDOWN)
		return FL_VMA_STACK;
	/* What the kernel has put there itself: _install_special_mapping(), mm/mmap.c. */
	if (flags & VM_DONTEXPAND)
		return FL_VMA_VDSO;
	if (start < fl_read(mm, brk) && fl_read(vma, vm_end) > fl_read(mm, start_brk))
		return FL_VMA_HEAP;
	return FL_VMA_ANONYMOUS;
}

/* The class of what lies at `address` of the mm_struct at `mm`, and more in fl_places. Global: verified once for its callers. */
__noinline int fl_find_place(u64 mm, u64 address)
{
	struct fl_place *place = fl_scratch(&fl_places);
	struct mm_struct *of = (void *)mm;
	struct vm_area_struct *vma;
	struct inode *inode;
	struct file *file;
	u64 flags;

	if (!place)
		return FL_VMA_NONE;
	place->vma = NULL;
	place->vm_start = 0;
	place->inode = 0;
	place->device = 0;
	if (!mm) /* a kernel thread */
		return FL_VMA_NONE;
	vma = fl_vma_at(mm, address);
	if (!vma)
		vma = fl_growing_stack(mm, address);
	if (!vma)
		return FL_VMA_NONE;
	place->vma = vma;
	place->vm_start = fl_read(vma, vm_start);
	flags = fl_read(vma, vm_flags);
	file = fl_read(vma, vm_file);
	if (!file)
		return fl_class_of_memory(of, vma, place->vm_start, flags);
	inode = fl_read(file, f_inode);
	if (fl_config.by == FL_BY_FILE) {
		place->inode = fl_read(inode, i_ino);
		place->device = fl_read(inode, i_sb, s_dev);
	}
	return fl_class_of_file(inode, flags);
}

/* Has user space been told of this mapping? It has from now on. */
static __always_inline bool fl_was_told(struct fl_fault_mapping *mapping)
{
	struct fl_told key = {.vm_start = mapping->vm_start, .tgid = mapping->tgid};
	struct fl_told_as now = {.vm_end = mapping->vm_end, .inode = mapping->inode, .vm_pgoff = mapping->file_offset},
			  *before = bpf_map_lookup_elem(&fl_told_mappings, &key);

	if (before && before->inode == now.inode && before->vm_pgoff == now.vm_pgoff && before->vm_end == now.vm_end)
		return true;
	bpf_map_update_elem(&fl_told_mappings, &key, &now, BPF_ANY);
	return false;
}

/* Tells user space of the mapping at `address`, once. 0: it knows. */
__noinline int fl_tell_mapping(u64 mm, u64 address)
{
	struct fl_fault_mapping *mapping = fl_scratch(&fl_records);
	struct fl_place *place = fl_scratch(&fl_places);
	struct vm_area_struct *vma;
	struct inode *inode;
	struct file *file;
	u64 length;

	if (!mapping || !place)
		return 1;
	mapping->vma_class = fl_find_place(mm, address);
	vma = place->vma;
	if (!vma)
		return 1;
	mapping->kind = FL_SAMPLE_MAPPING;
	mapping->tgid = bpf_get_current_pid_tgid() >> 32;
	mapping->vm_start = fl_read(vma, vm_start);
	mapping->vm_end = fl_read(vma, vm_end);
	mapping->vm_flags = fl_read(vma, vm_flags);
	mapping->file_offset = (u64)fl_read(vma, vm_pgoff) << FL_PAGE_SHIFT;
	file = fl_read(vma, vm_file);
	inode = file ? fl_read(file, f_inode) : NULL;
	mapping->inode = inode ? fl_read(inode, i_ino) : 0;
	mapping->device = inode ? fl_read(inode, i_sb, s_dev) : 0;
	mapping->flags = 0;
	mapping->strings_length = 0;
	if (fl_was_told(mapping))
		return 0;
	mapping->timestamp_ns = bpf_ktime_get_boot_ns();
	if (file) {
		if (fl_add_path((u64)file))
			mapping->flags |= FL_FILE_PATH_CUT;
		if (!fl_read(file, f_path.dentry, d_hash.pprev)) /* d_unhashed(), include/linux/dcache.h */
			mapping->flags |= FL_FILE_DELETED;
	}
	length = __builtin_offsetof(struct fl_fault_mapping, strings) + mapping->strings_length;
	barrier_var(length); /* or the check is done on another copy, which old verifiers don't connect with this one */
	if (length > sizeof(*mapping))
		return 1;
	/* Nobody waits for it: it is read with the next interval's counts. */
	if (bpf_ringbuf_output(&fl_ring, mapping, length, BPF_RB_NO_WAKEUP)) {
		struct fl_told key = {.vm_start = mapping->vm_start, .tgid = mapping->tgid};

		bpf_map_delete_elem(&fl_told_mappings, &key);
		fl_count(FL_LOST_MAPPINGS);
		return 1;
	}
	return 0;
}

#endif
