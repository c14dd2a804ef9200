/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Looks up the VMA of an address, and its neighbours, from task->mm without a lock.
 *
 * signal_deliver runs with interrupts off, where bpf_find_vma() works once per event at best and costs 25 us. Reading the
 * tree with fl_copy() costs about 100 ns (6.18, one CPU of a VM, 2026-11) and can't fail for a lock's sake.
 *
 * Benign race: another thread may change the tree while we read. Maple nodes are freed by RCU and our reads can't fault,
 * so the worst is a stale answer, and fl_vma_holds() drops one that does not hold the address.
 */
#ifndef FL_VMA_BPF_H
#define FL_VMA_BPF_H

#include "kernel.h"

#define FL_MAPLE_NODE_BYTES 256 /* struct maple_node */
#define FL_MAPLE_DEPTH_MAX  8   /* 10 slots a level: far above sysctl_max_map_count */
#define FL_VMA_BYTES \
	192 /* of struct vm_area_struct: all that is looked at lies in them on the kernels that were seen */
#define FL_RB_BYTES     64 /* the same, of its beginning, before v6.1 */
#define FL_RB_DEPTH_MAX 48 /* twice the binary logarithm of more VMAs than there can be */

/*
 * The state of one look-up. It lives in a per-CPU map rather than on the stack: the verifier then has no constants to
 * track through the loops, and old kernels accept them.
 */
struct fl_walk {
	char node[FL_MAPLE_NODE_BYTES];
	char vma[FL_VMA_BYTES]; /* fl_read_vma_at(): the beginning of the VMA */
	u64 entry;              /* the present entry of the tree; at the end the VMA, 0: a hole */
	u64 low;                /* maple tree: the range that the entry covers */
	u64 high;
	u64 below; /* rb tree: the last VMA below and above the address */
	u64 above;
};
FL_SCRATCH(fl_walks, struct fl_walk);

/* lib/maple_tree.c: an encoded node has its type in bits 3 to 6; arange nodes are wider spread, leaves are 0 and 1. */
#define FL_MAPLE_TYPE(entry) (((entry) >> 3) & 0xf)
#define FL_MAPLE_ARANGE_64   3
#define FL_MAPLE_LEAF_64     1
#define FL_MAPLE_ARANGE_LAST 9    /* its last slot */
#define FL_MAPLE_NODE_MIN    4096 /* xa_is_node(): what is less is a value of the tree's own */

static __always_inline bool fl_maple_is_node(u64 entry)
{
	return (entry & 3) == 2 && entry > FL_MAPLE_NODE_MIN;
}

/*
 * Reads the node at walk->entry and takes the slot that covers `address`. 0: well. Global: its loop is then verified once,
 * not once for each level of the tree, which was half of the time it took to load.
 */
__noinline int fl_maple_step(u64 address)
{
	struct fl_walk *walk = fl_scratch(&fl_walks);
	u64 entry, node, low, high;
	u32 pivots, last_slot, slot, at;

	/* A kernel without maple trees verifies this function all the same. */
	if (!walk || !bpf_core_type_exists(struct maple_arange_64))
		return -1;
	entry = walk->entry;
	low = walk->low;
	high = walk->high;
	node = entry & ~0xffULL;
	if (fl_read_block(walk->node, FL_MAPLE_NODE_BYTES, (const void *)node))
		return -1;
	if (FL_MAPLE_TYPE(entry) == FL_MAPLE_ARANGE_64) {
		pivots = bpf_core_field_offset(struct maple_arange_64, pivot);
		last_slot = FL_MAPLE_ARANGE_LAST;
	} else {
		pivots = bpf_core_field_offset(struct maple_range_64, pivot);
		last_slot = 15;
	}
	/* The last slot has no pivot: it ends where the node does. So does the node before a pivot that isn't used. */
	for (slot = 0; slot < last_slot; slot++) {
		u64 last;

		at = pivots + slot * 8;
		barrier_var(at);
		if (at > FL_MAPLE_NODE_BYTES - 8)
			return -1;
		last = fl_block_word(walk->node, node, at);
		if ((last == 0 && slot > 0) || last >= high)
			break;
		if (address <= last) {
			high = last;
			break;
		}
		low = last + 1;
	}
	/* Not before the loop: what is kept over it takes room on the stack, of which the chain of calls to here has none to spare. */
	barrier_var(last_slot);
	at = last_slot == FL_MAPLE_ARANGE_LAST ? bpf_core_field_offset(struct maple_arange_64, slot)
					       : bpf_core_field_offset(struct maple_range_64, slot);
	at += slot * 8;
	barrier_var(at);
	if (at > FL_MAPLE_NODE_BYTES - 8 || address > high)
		return -1;
	walk->low = low;
	walk->high = high;
	walk->entry = fl_block_word(walk->node, node, at);
	return 0;
}

static __always_inline int fl_maple_find(struct fl_walk *walk, struct mm_struct *mm, u64 address)
{
	walk->low = 0;
	walk->high = ~0ULL;
	walk->entry = (u64)fl_read(mm, mm_mt.ma_root);
	if (!fl_maple_is_node(walk->entry))
		return walk->entry ? -1 : 0;
	for (int depth = 0; depth < FL_MAPLE_DEPTH_MAX; depth++) {
		u64 type = FL_MAPLE_TYPE(walk->entry);

		if (fl_maple_step(address))
			return -1;
		if (type <= FL_MAPLE_LEAF_64 || !walk->entry)
			return 0;
	}
	return -1;
}

/* A field, which is a word, of a VMA whose first `bytes` have been read to walk->vma. */
#define fl_field_word(walk, bytes, of, field)                                                          \
	(bpf_core_field_offset(struct vm_area_struct, field) <= (bytes) - sizeof(u64)                  \
		 ? fl_block_word((walk)->vma, of, bpf_core_field_offset(struct vm_area_struct, field)) \
		 : (u64)fl_read(of, field))

/* Finds the mapping of an address before v6.1. Global: what it keeps takes room on the stack beside fl_maple_step()'s, not above it. */
__noinline int fl_rb_find(u64 mm, u64 address)
{
	struct fl_walk *walk = fl_scratch(&fl_walks);
	struct mm_struct *of = (void *)mm;
	struct rb_node *node;

	if (!walk || !bpf_core_field_exists(of->mm_rb))
		return -1;
	node = fl_read(of, mm_rb.rb_node);
	walk->entry = 0;
	walk->below = 0;
	walk->above = 0;
	for (int depth = 0; depth < FL_RB_DEPTH_MAX; depth++) {
		struct vm_area_struct *vma;

		if (!node)
			return 0;
		vma = (void *)((char *)node - bpf_core_field_offset(struct vm_area_struct, vm_rb));
		if (fl_read_block(walk->vma, FL_RB_BYTES, vma))
			return -1;
		if (fl_field_word(walk, FL_RB_BYTES, vma, vm_end) > address) {
			walk->above = (u64)vma;
			if (fl_field_word(walk, FL_RB_BYTES, vma, vm_start) <= address) {
				walk->entry = (u64)vma;
				return 0;
			}
			node = (void *)fl_field_word(walk, FL_RB_BYTES, vma, vm_rb.rb_left);
		} else {
			walk->below = (u64)vma;
			node = (void *)fl_field_word(walk, FL_RB_BYTES, vma, vm_rb.rb_right);
		}
	}
	return -1;
}

/* Looks `address` up in the mm_struct at `mm`; the answer is walk->entry. Global: verified once for all callers. */
__noinline int fl_find_vma(u64 mm, u64 address)
{
	struct fl_walk *walk = fl_scratch(&fl_walks);
	struct mm_struct *tree = (void *)mm;
	int failed = -1;

	if (!walk)
		return -1;
	walk->entry = 0;
	if (bpf_core_field_exists(tree->mm_mt))
		failed = fl_maple_find(walk, tree, address);
	else if (bpf_core_field_exists(tree->mm_rb))
		failed = fl_rb_find(mm, address);
	if (failed)
		walk->entry = 0;
	return failed;
}

static __always_inline bool fl_vma_holds(struct vm_area_struct *vma, u64 mm, u64 address)
{
	return fl_read(vma, vm_start) <= address && address < fl_read(vma, vm_end) && (u64)fl_read(vma, vm_mm) == mm;
}

/* The VMA that holds `address`, NULL: none. */
static __always_inline struct vm_area_struct *fl_vma_at(u64 mm, u64 address)
{
	struct fl_walk *walk = fl_scratch(&fl_walks);
	struct vm_area_struct *vma;

	if (!walk || fl_find_vma(mm, address))
		return NULL;
	vma = (void *)walk->entry;
	if (!vma || !fl_vma_holds(vma, mm, address))
		return NULL;
	return vma;
}

#define fl_vma_word(walk, vma, field) fl_field_word(walk, FL_VMA_BYTES, vma, field)

/* The same; its fields are then fl_vma_word()s. One read of them costs less than a read of each. */
static __always_inline struct vm_area_struct *fl_read_vma_at(u64 mm, u64 address)
{
	struct fl_walk *walk = fl_scratch(&fl_walks);
	struct vm_area_struct *vma;

	if (!walk || fl_find_vma(mm, address))
		return NULL;
	vma = (void *)walk->entry;
	if (!vma || fl_read_block(walk->vma, FL_VMA_BYTES, vma))
		return NULL;
	if (fl_vma_word(walk, vma, vm_start) > address || address >= fl_vma_word(walk, vma, vm_end) ||
	    fl_vma_word(walk, vma, vm_mm) != mm)
		return NULL;
	return vma;
}

/*
 * The VMA below the hole that holds an address: call it right after fl_vma_at() found none there. In a maple tree the hole is one entry, so its
 * neighbours are one address away; an rb tree has met them on its way.
 */
static __always_inline struct vm_area_struct *fl_vma_below(u64 mm)
{
	struct fl_walk *walk = fl_scratch(&fl_walks);
	struct mm_struct *tree = (void *)mm;

	if (!walk)
		return NULL;
	if (!bpf_core_field_exists(tree->mm_mt))
		return (void *)walk->below;
	return walk->low ? fl_vma_at(mm, walk->low - 1) : NULL;
}

/* The VMA above that hole, in the same way. */
static __always_inline struct vm_area_struct *fl_vma_above(u64 mm)
{
	struct fl_walk *walk = fl_scratch(&fl_walks);
	struct mm_struct *tree = (void *)mm;

	if (!walk)
		return NULL;
	if (!bpf_core_field_exists(tree->mm_mt))
		return (void *)walk->above;
	return walk->high != ~0ULL ? fl_vma_at(mm, walk->high + 1) : NULL;
}

/* Both VMAs next to that hole. */
static __always_inline void fl_vma_neighbours(u64 mm, struct vm_area_struct **below, struct vm_area_struct **above)
{
	struct fl_walk *walk = fl_scratch(&fl_walks);
	u64 high;

	*below = NULL;
	*above = NULL;
	if (!walk)
		return;
	high = walk->high;
	*below = fl_vma_below(mm);
	walk->high = high;
	*above = fl_vma_above(mm);
}

/*
 * The first mapping above the hole that was just found, if the stack will grow down to `address`: expand_stack(), mm/mmap.c.
 * The limit of the stack is taken into account.
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

#endif
