/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The mapping at an address: its class for each fault that is counted by it, and its description once for user space.
 */
#ifndef FL_MAPPING_BPF_H
#define FL_MAPPING_BPF_H

#include "filter.bpf.h"
#include "region.bpf.h"
#include "ring.bpf.h"

/* Mappings that were sent to user space. Full: the one that was looked up longest ago is forgotten, and sent once more. */
struct fl_mapping_key {
	u64 address;
	u32 tgid;
	u32 pad;
};
struct fl_mapping_as {
	u64 vm_end;
	u64 inode;
	u64 vm_pgoff;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FL_SENT_MAX);
	__type(key, struct fl_mapping_key);
	__type(value, struct fl_mapping_as);
} fl_mappings SEC(".maps");

/*
 * A cache of this processor: the mappings of FL_PLACES_MAX parts of 64 KiB. An entry holds as long as the address space has not changed
 * since (mm_lock_seq), and saves the walk, which costs more than all the rest. Kernels before v6.4 have no such number: there each
 * look-up walks.
 */
struct fl_place {
	u64 mm;
	u64 sequence; /* 0: don't believe it */
	u64 vm_start;
	u64 vm_end;
	u64 inode; /* with FL_BY_FILE; 0: no file */
	u32 device;
	u32 tgid;
	enum fl_vma_class vma_class;
	u32 pad;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FL_PLACES_MAX);
	__type(key, u32);
	__type(value, struct fl_place);
} fl_places SEC(".maps");

static __always_inline struct fl_place *fl_place_of(u64 address)
{
	u32 part = (address >> 16) & (FL_PLACES_MAX - 1);

	return bpf_map_lookup_elem(&fl_places, &part);
}

/* How often the address space has been changed, never 0; 0: the kernel has no such number. */
static __always_inline u64 fl_mm_sequence(struct mm_struct *mm)
{
	struct mm_struct___seqcount *newer = (void *)mm;
	u32 sequence = 0;

	if (bpf_core_field_exists(newer->mm_lock_seq))
		sequence = fl_read(newer, mm_lock_seq.sequence);
	else if (bpf_core_field_exists(mm->mm_lock_seq))
		sequence = fl_read(mm, mm_lock_seq);
	else
		return 0;
	return 1ULL << 32 | sequence;
}

static __always_inline enum fl_vma_class fl_class_of_file(struct inode *inode, u64 flags)
{
	return flags & VM_MAYSHARE && fl_read(inode, i_sb, s_magic) == TMPFS_MAGIC ? FL_VMA_SHARED : FL_VMA_FILE;
}

/* Memory without a file. The heap as /proc/PID/maps has it: fs/proc/task_mmu.c. */
static __always_inline enum fl_vma_class fl_class_of_memory(struct mm_struct *mm, struct vm_area_struct *vma, u64 start,
							    u64 flags)
{
	if (flags & VM_GROWSDOWN)
		return FL_VMA_STACK;
	/* A mapping of the kernel's own: _install_special_mapping(), mm/mmap.c. */
	if (flags & VM_DONTEXPAND)
		return FL_VMA_VDSO;
	if (start < fl_read(mm, brk) && fl_read(vma, vm_end) > fl_read(mm, start_brk))
		return FL_VMA_HEAP;
	return FL_VMA_ANONYMOUS;
}

/* The mapping at `address`, or the stack that will grow there. NULL: nothing. */
static __always_inline struct vm_area_struct *fl_mapping_at(u64 mm, u64 address)
{
	struct vm_area_struct *vma = mm ? fl_vma_at(mm, address) : NULL;

	return vma || !mm ? vma : fl_growing_stack(mm, address);
}

static __always_inline enum fl_vma_class fl_class_of(u64 mm, struct vm_area_struct *vma)
{
	struct file *file = fl_read(vma, vm_file);
	u64 flags = fl_read(vma, vm_flags);

	if (file)
		return fl_class_of_file(fl_read(file, f_inode), flags);
	return fl_class_of_memory((void *)mm, vma, fl_read(vma, vm_start), flags);
}

/* Finds the mapping at `address` of the mm_struct at `mm`. Global: verified once, and seldom needed. */
__noinline int fl_find_place(u64 mm, u64 address, u64 sequence)
{
	struct fl_place *place = fl_place_of(address);
	struct vm_area_struct *vma = fl_mapping_at(mm, address);
	struct file *file;

	if (!place)
		return 1;
	place->mm = mm;
	place->sequence = 0;
	place->vm_start = 0;
	place->inode = 0;
	place->device = 0;
	place->vma_class = FL_VMA_NONE;
	if (!vma)
		return 0;
	place->tgid = bpf_get_current_pid_tgid() >> 32;
	place->vma_class = fl_class_of(mm, vma);
	place->vm_start = fl_read(vma, vm_start);
	place->vm_end = fl_read(vma, vm_end);
	if (fl_config.by == FL_BY_FILE) {
		struct fl_file identity = {};

		file = fl_read(vma, vm_file);
		if (file)
			fl_identify_file(&identity, file);
		place->inode = identity.inode;
		place->device = identity.device;
	}
	/* brk(2) changes the end of the heap together with the heap. */
	place->sequence = sequence;
	return 0;
}

/* The mapping at `address` in the current task's memory. NULL: unknown. */
static __always_inline const struct fl_place *fl_place_at(struct mm_struct *mm, u64 address, u32 tgid)
{
	struct fl_place *place = fl_place_of(address);
	u64 sequence = mm ? fl_mm_sequence(mm) : 0;

	if (!place)
		return NULL;
	if (sequence && place->sequence == sequence && place->mm == (u64)mm && place->tgid == tgid &&
	    place->vm_start <= address && address < place->vm_end)
		return place;
	return fl_find_place((u64)mm, address, sequence) ? NULL : place;
}

/* An address by which a mapping is identified, because it stays. The stack grows down. */
static __always_inline u64 fl_address_of(const struct fl_fault_mapping *mapping)
{
	const struct fl_vma *vma = &mapping->vma;

	return vma->permissions & FL_GROWS_DOWN ? vma->vm_end - fl_page_bytes : vma->vm_start;
}

/* Was this mapping sent to user space? From now on it counts as sent. */
static __always_inline bool fl_was_sent(struct fl_fault_mapping *mapping)
{
	struct fl_mapping_key key = {.address = fl_address_of(mapping), .tgid = mapping->tgid};
	struct fl_mapping_as now = {.vm_end = mapping->vma.vm_end,
				    .inode = mapping->file.inode,
				    .vm_pgoff = mapping->vma.file_offset},
			     *before = bpf_map_lookup_elem(&fl_mappings, &key);

	if (before && before->inode == now.inode && before->vm_pgoff == now.vm_pgoff && before->vm_end == now.vm_end)
		return true;
	bpf_map_update_elem(&fl_mappings, &key, &now, BPF_ANY);
	return false;
}

/* Sends the mapping at `address` to user space, once. 0: it was sent. */
__noinline int fl_send_mapping(u64 mm, u64 address)
{
	struct fl_fault_mapping *mapping = fl_scratch(&fl_records);
	struct vm_area_struct *vma = fl_mapping_at(mm, address);
	struct file *file;
	u64 length;

	if (!mapping || !vma)
		return 1;
	mapping->vma_class = fl_class_of(mm, vma);
	mapping->kind = FL_SAMPLE_MAPPING;
	mapping->tgid = bpf_get_current_pid_tgid() >> 32;
	mapping->strings_length = 0;
	__builtin_memset(&mapping->file, 0, sizeof(mapping->file));
	fl_place_vma(&mapping->vma, vma);
	file = fl_read(vma, vm_file);
	if (file) {
		mapping->vma.file = 1;
		fl_identify_file(&mapping->file, file);
	}
	if (fl_was_sent(mapping))
		return 0;
	mapping->timestamp_ns = bpf_ktime_get_boot_ns();
	if (file) {
		fl_name_file(&mapping->file, 0, file);
		mapping->file.path_length = mapping->strings_length;
	}
	length = __builtin_offsetof(struct fl_fault_mapping, strings) + mapping->strings_length;
	barrier_var(length); /* or the check is done on another copy, and old verifiers don't see that both are equal */
	if (length > sizeof(*mapping))
		return 1;
	/* Nobody waits for it: it is read with the next interval's counts. */
	if (bpf_ringbuf_output(&fl_ring, mapping, length, BPF_RB_NO_WAKEUP)) {
		struct fl_mapping_key key = {.address = fl_address_of(mapping), .tgid = mapping->tgid};

		bpf_map_delete_elem(&fl_mappings, &key);
		fl_count(FL_LOST_MAPPINGS);
		return 1;
	}
	return 0;
}

#endif
