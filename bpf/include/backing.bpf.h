/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a diagnosis must know of the mapping that refused an access, while it is still there: how long its file is, and why there may be no
 * page; what was done with the mapping before; how a thread came to a place without code.
 */
#ifndef FL_BACKING_BPF_H
#define FL_BACKING_BPF_H

#include "config.bpf.h"
#include "record.bpf.h"
#include "signal.h"
#include "vma.bpf.h"

#define FL_SEGMENTS_NEAR 4            /* of a program or library: mappings of one file, next to each other */
#define FL_SEGMENT_GAP   (2ULL << 20) /* between two of them at most: linkers align them for the largest pages */

#define FL_COUNTER_BATCH 32 /* at least; lib/percpu_counter.c */

/* How much more than its count a counter has whose parts are the processors'. */
static __always_inline u64 fl_counter_slack(void)
{
	u64 batch = 2ULL * fl_config.processors;

	return fl_config.processors * (batch > FL_COUNTER_BATCH ? batch : FL_COUNTER_BATCH);
}

/* How many pages a tmpfs or the pool of huge pages has, and how many are used. */
static __always_inline void fl_describe_capacity(struct fl_backing *backing, struct super_block *super)
{
	struct hugetlbfs_sb_info *huge = fl_read(super, s_fs_info);
	struct shmem_sb_info *shmem = (void *)huge;
	struct hstate *pool = NULL;
	u64 free, reserved;

	if (backing->magic == TMPFS_MAGIC && bpf_core_field_exists(shmem->used_blocks)) {
		backing->capacity = fl_read(shmem, max_blocks);
		backing->used = fl_read(shmem, used_blocks.count);
		backing->used_most = backing->used + fl_counter_slack();
	} else if (backing->magic == HUGETLBFS_MAGIC && bpf_core_field_exists(pool->free_huge_pages)) {
		pool = fl_read(huge, hstate);
		free = fl_read(pool, free_huge_pages);
		reserved = fl_read(pool, resv_huge_pages);
		backing->page_bytes = (u64)(1 << fl_page_shift) << fl_read(pool, order);
		backing->capacity = fl_read(pool, nr_huge_pages);
		backing->used = backing->capacity - (free > reserved ? free - reserved : 0);
		backing->used_most = backing->used;
	}
}

/* The file of the mapping that had no page for the fault's address. Global: verified once. */
__noinline int fl_describe_backing(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct vm_area_struct *vma;
	struct inode *inode;
	struct file *file;

	if (!record)
		return 1;
	vma = fl_vma_at(mm, record->fault_address);
	if (!vma)
		return 0;
	if (bpf_core_field_exists(vma->vm_userfaultfd_ctx.ctx) && fl_read(vma, vm_userfaultfd_ctx.ctx))
		record->flags |= FL_BY_USERFAULTFD;
	file = fl_read(vma, vm_file);
	if (!file)
		return 0;
	/* An overlay maps the file of its layer. */
	inode = fl_read(file, f_inode);
	if ((fl_read(inode, i_mode) & S_IFMT) != S_IFREG)
		return 0;
	__builtin_memset(&record->backing, 0, sizeof(record->backing));
	record->backing.size = fl_read(inode, i_size);
	record->backing.magic = fl_read(inode, i_sb, s_magic);
	fl_describe_capacity(&record->backing, fl_read(inode, i_sb));
	record->flags |= FL_HAS_BACKING;
	return 0;
}

/* The mapping below or above `vma`, across a gap between segments. */
static __always_inline struct vm_area_struct *fl_vma_beside(u64 mm, struct vm_area_struct *vma, u32 down)
{
	u64 edge = down ? fl_read(vma, vm_start) : fl_read(vma, vm_end);
	struct vm_area_struct *beside = fl_vma_at(mm, down ? edge - 1 : edge);
	u64 gap;

	if (beside)
		return beside;
	beside = down ? fl_vma_below(mm) : fl_vma_above(mm);
	if (!beside)
		return NULL;
	gap = down ? edge - fl_read(beside, vm_end) : fl_read(beside, vm_start) - edge;
	return gap < FL_SEGMENT_GAP ? beside : NULL;
}

/* Is a mapping next to this one, of the same file, executable? `down`: look below it, else above it. */
__noinline int fl_is_executed_near(u64 mm, u64 address, u32 down)
{
	struct vm_area_struct *vma = fl_vma_at(mm, address);
	struct inode *inode;

	if (!vma)
		return 0;
	inode = fl_read(vma, vm_file, f_inode);
	if (!inode)
		return 0;
	for (int i = 0; i < FL_SEGMENTS_NEAR; i++) {
		vma = fl_vma_beside(mm, vma, down);
		if (!vma || fl_read(vma, vm_file, f_inode) != inode)
			return 0;
		if (fl_read(vma, vm_flags) & VM_EXEC)
			return 1;
	}
	return 0;
}

/* What was done before with the mapping that may not be written to. */
__noinline int fl_describe_closed(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct vm_area_struct *vma;
	u64 address, flags;

	if (!record)
		return 1;
	address = record->fault_address;
	vma = fl_vma_at(mm, address);
	if (!vma)
		return 0;
	flags = fl_read(vma, vm_flags);
	/*
	 * Private memory is accounted for once it may be written to: accountable_mapping(), mprotect_fixup(), mm/. Pages of its own prove less: a
	 * debugger writes to any memory, and what is not accounted for (MAP_NORESERVE) is merged with its neighbours. Of such memory that may be read
	 * nothing says whether it was writable.
	 */
	if (!(flags & (VM_SHARED | VM_MAYSHARE))) {
		if (flags & VM_ACCOUNT)
			record->flags |= FL_WAS_WRITABLE;
		if (fl_read(vma, anon_vma) || (flags & VM_READ && flags & VM_NORESERVE))
			record->flags |= FL_HAS_OWN_PAGES;
	}
	if (flags & VM_EXEC || fl_is_executed_near(mm, address, 1) || fl_is_executed_near(mm, address, 0))
		record->flags |= FL_IS_EXECUTED;
	return 0;
}

/* The operand of the call of `length` bytes before jump.caller; 0: there is no such call. Global: verified once, and not for each length. */
__noinline u64 fl_operand_of_jump(u32 length)
{
	struct fl_crash *record = fl_scratch(&fl_records);

	barrier_var(length);
	if (!record || length < 2 || length >= FL_CALL_BYTES)
		return 0;
	return fl_operand_of_call(&record->registers, record->jump.code, length, record->jump.caller);
}

/* What called, where the instruction pointer leads to no code: the words around the top of the stack, the code before the return address. */
__noinline int fl_describe_jump(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_jump *jump;
	u64 words[2];
	u64 at;

	if (!record)
		return 1;
	jump = &record->jump;
	if (fl_read_around_top(words, &record->registers))
		return 0;
	jump->popped = words[0];
	jump->caller = words[1];
	record->flags |= FL_HAS_TOP;
	if (bpf_probe_read_user(jump->code, FL_CALL_BYTES, (const void *)(jump->caller - FL_CALL_BYTES)))
		return 0;
	record->flags |= FL_HAS_CALLER_CODE;
	for (u32 length = 2; length < FL_CALL_BYTES; length++) {
		at = fl_operand_of_jump(length);
		if (!at || bpf_probe_read_user(&jump->slot, sizeof(jump->slot), (const void *)at))
			continue;
		jump->slot_address = at;
		record->flags |= FL_HAS_SLOT;
		return 0;
	}
	return 0;
}

/* What the signal at hand needs of it. */
static __always_inline void fl_describe_refusal(struct fl_crash *record, u64 mm)
{
	if (!(record->flags & FL_HAS_ADDRESS) || !(record->flags & FL_HAS_REGISTERS))
		return;
	if (record->signal == FL_SIGBUS)
		fl_describe_backing(mm);
	if (record->signal != FL_SIGSEGV || !(record->flags & FL_HAS_PAGE_FAULT))
		return;
	if (fl_error_has(record->error_code, FL_PF_INSTR))
		fl_describe_jump();
	else if (record->si_code == SEGV_ACCERR)
		fl_describe_closed(mm);
}

#endif
