/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages and mappings of the current process on their way to user space: pages first, then the record that names them.
 *
 * A page is copied straight into the ring. One that is not in memory is left out: no program of ours can fault it in, user
 * space does. Nothing here sleeps or takes a lock.
 */
#ifndef FL_PAGES_BPF_H
#define FL_PAGES_BPF_H

#include "filter.bpf.h"
#include "region.bpf.h"
#include "ring.bpf.h"

/* What is being looked at. */
struct fl_look {
	u64 mm;
	u64 address; /* how far the walk has come */
	u64 end;
	u64 timestamp_ns;
	enum fl_call call;
	enum fl_mapping_flag flags; /* of the records */
	u32 pages;                  /* sent for the mapping at hand */
	u32 pages_lost;             /* not sent for want of room */
	u32 volatile_only;
	u32 found; /* mappings */
	u32 busy;  /* a program of ours on this processor uses it */
	u32 pad;
};
FL_SCRATCH(fl_looks, struct fl_look);

/*
 * Takes the scratch memory of this processor. NULL: it is in use. On new kernels (v6.13 and later) programs at system calls, fork, exec
 * and exit may be preempted, by a task that comes to such a place itself. Such a run is counted as lost, and user space looks at the
 * mappings by itself.
 */
static __always_inline struct fl_look *fl_begin_look(void)
{
	struct fl_look *look = fl_scratch(&fl_looks);

	if (!look)
		return NULL;
	if (look->busy) {
		fl_count(FL_LOST_BUSY);
		return NULL;
	}
	look->busy = 1;
	barrier();
	return look;
}

static __always_inline void fl_end_look(struct fl_look *look)
{
	barrier();
	look->busy = 0;
}

/* Can the content of the mapping change without a call that we see? */
static __always_inline bool fl_is_volatile(struct vm_area_struct *vma)
{
	struct file *file = fl_read(vma, vm_file);

	if (fl_read(vma, vm_flags) & (VM_WRITE | VM_MAYSHARE))
		return true;
	return file && fl_is_unlinked(file);
}

/* Sends the page at `address`. 0: sent; 1: not in memory; 2: no room. */
__noinline int fl_send_page(u64 address)
{
	struct fl_look *look = fl_scratch(&fl_looks);
	struct fl_page *page;
	u8 first;

	/* A discarded reservation still takes its place in the ring: so check first whether the page is there. */
	if (!look || bpf_probe_read_user(&first, sizeof(first), (const void *)address))
		return 1;
	page = bpf_ringbuf_reserve(&fl_ring, sizeof(*page), 0);
	if (!page) {
		fl_count(FL_LOST_PAGES);
		look->pages_lost += 1;
		return 2;
	}
	if (bpf_probe_read_user(page->bytes, FL_PIECE_BYTES, (const void *)address)) {
		bpf_ringbuf_discard(page, BPF_RB_NO_WAKEUP);
		return 1;
	}
	page->kind = FL_SAMPLE_PAGE;
	page->call = look->call;
	page->timestamp_ns = look->timestamp_ns;
	page->pid = bpf_get_current_pid_tgid() >> 32;
	page->tid = (u32)bpf_get_current_pid_tgid();
	page->address = address;
	bpf_ringbuf_submit(page, BPF_RB_NO_WAKEUP);
	look->pages += 1;
	fl_count(FL_PAGES);
	return 0;
}

/* Sends the pages from `start` to `end` that are in memory, FL_PAGES_MAX at most. `fresh`: if the first one isn't, none is. */
__noinline int fl_send_pages(u64 start, u64 end, u32 fresh)
{
	u64 address = start & ~(FL_PIECE_BYTES - 1ULL);

	for (u32 i = 0; i < FL_PAGES_MAX; i++) {
		if (address >= end)
			break;
		if (fl_send_page(address) && fresh)
			break;
		address += FL_PIECE_BYTES;
	}
	return 0;
}

#define FL_HEADER_VMA_STEPS 4          /* from the code back to the headers: usually 1 */
#define FL_ELF_MAGIC        0x464c457f /* "\177ELF", little endian */

/* Sends the ELF header of the module that has code from `start` on, if the mapping right below begins with one. */
__noinline int fl_send_header(u64 start)
{
	struct fl_look *look = fl_scratch(&fl_looks);

	if (!look)
		return 1;
	for (int i = 0; i < FL_HEADER_VMA_STEPS; i++) {
		struct vm_area_struct *vma = fl_vma_at(look->mm, start - 1);
		u32 magic = 0;

		if (!vma)
			return 1;
		start = fl_read(vma, vm_start);
		if (!bpf_probe_read_user(&magic, sizeof(magic), (const void *)start) && magic == FL_ELF_MAGIC)
			return fl_send_page(start);
	}
	return 1;
}

/* Begins a record of the current task. */
__noinline int fl_begin_record(void)
{
	struct fl_mapping *record = fl_scratch(&fl_records);
	struct fl_look *look = fl_scratch(&fl_looks);
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = fl_read(task, group_leader);

	if (!record || !look)
		return 1;
	__builtin_memset(record, 0, __builtin_offsetof(struct fl_mapping, strings));
	record->kind = FL_SAMPLE_MAPPING;
	record->call = look->call;
	record->timestamp_ns = look->timestamp_ns;
	record->flags = look->flags;
	record->pid = bpf_get_current_pid_tgid() >> 32;
	record->tid = (u32)bpf_get_current_pid_tgid();
	record->ppid = fl_read(task, real_parent, tgid);
	fl_copy(record->comm, FL_COMM_BYTES, &leader->comm);
	look->pages = 0;
	look->pages_lost = 0;
	return 0;
}

/* Adds the mapping at `vma` to the record. */
__noinline int fl_describe_vma(u64 vma)
{
	struct fl_mapping *record = fl_scratch(&fl_records);
	struct vm_area_struct *from = (void *)vma;
	struct file *file = fl_read(from, vm_file);

	if (!record)
		return 1;
	fl_place_vma(&record->vma, from);
	if (!file)
		return 0;
	record->vma.file = 1;
	fl_identify_file(&record->file, file);
	fl_name_file(&record->file, record->strings_length, file);
	record->file.path_length = record->strings_length;
	return 0;
}

__noinline int fl_send_record(void)
{
	struct fl_mapping *record = fl_scratch(&fl_records);
	struct fl_look *look = fl_scratch(&fl_looks);
	u64 length;

	if (!record || !look)
		return 1;
	record->pages = look->pages;
	record->pages_lost = look->pages_lost;
	length = __builtin_offsetof(struct fl_mapping, strings) + record->strings_length;
	barrier_var(length); /* or the check is done on another copy, and old verifiers don't see that both are equal */
	if (length > sizeof(*record))
		return 1;
	if (bpf_ringbuf_output(&fl_ring, record, length, 0)) {
		fl_count(FL_LOST_RING_FULL);
		return 1;
	}
	fl_count(FL_CALLS);
	return 0;
}

/* The executable mapping at or above look->address, as a record with its pages. 0: there may be more above. */
__noinline int fl_look_step(void)
{
	struct fl_mapping *record = fl_scratch(&fl_records);
	struct fl_look *look = fl_scratch(&fl_looks);
	struct vm_area_struct *vma, *below, *above;
	u64 start, end;

	if (!record || !look)
		return 1;
	vma = fl_vma_at(look->mm, look->address);
	if (!vma) {
		fl_vma_neighbours(look->mm, &below, &above);
		if (!above)
			return 1;
		vma = above;
	}
	start = fl_read(vma, vm_start);
	end = fl_read(vma, vm_end);
	if (start >= look->end || end <= look->address)
		return 1;
	if (start < look->address)
		start = look->address;
	look->address = end;
	if (end > look->end)
		end = look->end;
	if (!(fl_read(vma, vm_flags) & VM_EXEC) || (look->volatile_only && !fl_is_volatile(vma)))
		return 0;
	look->found += 1;
	fl_begin_record();
	record->address = start;
	record->length = end - start;
	fl_describe_vma((u64)vma);
	if (fl_config.pages)
		fl_send_pages(start, end, !look->volatile_only);
	fl_send_record();
	return 0;
}

/* All executable mappings from look->address to look->end, each as a record with its pages. */
__noinline int fl_look_around(void)
{
	for (int i = 0; i < FL_SCAN_MAX; i++) {
		if (fl_look_step())
			break;
	}
	return 0;
}

#endif
