/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Finds the user's registers of the current task, as they were when it entered the kernel.
 */
#ifndef FL_PT_REGS_BPF_H
#define FL_PT_REGS_BPF_H

#include "kernel.h"

#define fl_has_task_pt_regs() bpf_core_enum_value_exists(enum bpf_func_id___fl, BPF_FUNC_task_pt_regs___fl)

/*
 * The current task's pt_regs, with the user's registers.
 *
 * bpf_task_pt_regs() came with v5.15. Before it, pt_regs lies at the top of the kernel stack; no kernel that lacks the
 * helper pads that place (CONFIG_X86_FRED, v6.9, would).
 */
static __always_inline const struct pt_regs *fl_pt_regs(void)
{
	struct task_struct *task;

	if (fl_has_task_pt_regs())
		return (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
	task = (void *)bpf_get_current_task();
	return (void *)((char *)fl_read(task, stack) + FL_PT_REGS_OFFSET);
}

/* Reads one register: fl_register(fl_regs_0(regs)). */
#define fl_register(place)                                              \
	({                                                              \
		__typeof__((place) + 0) value = 0;                      \
		bpf_probe_read_kernel(&value, sizeof(value), &(place)); \
		value;                                                  \
	})

#ifdef FL_TYPED

#define FL_STACK_BYTES_MAX \
	(1 << 17) /* of a kernel's stack: 64 KiB on arm64 with pages of as many, twice that with KASAN */

/* The offset of pt_regs from the beginning of a kernel stack, from the helper; the same for all tasks. 0: not known yet. */
u64 fl_pt_regs_offset = 0;

/* The same by a load, which costs less than the helper: for fl_near_register(). `task` is from fl_current(). */
static __always_inline const struct pt_regs *fl_near_pt_regs(struct task_struct *task)
{
	u64 offset = fl_pt_regs_offset;

	if (!offset) {
		/* Not by fl_own(): from v7.0 on a void pointer is no number for the verifier. */
		u64 stack = (u64)fl_read(task, stack);

		/* The verifier lets a pointer be subtracted from a pointer only. */
		offset = (const char *)bpf_task_pt_regs(task) - (const char *)task;
		barrier_var(offset);
		offset += bpf_get_current_task() - stack;
		fl_pt_regs_offset = offset; /* benign race: all of them write the same */
	}
	/* A void pointer may be moved by a number with a bound. */
	offset &= FL_STACK_BYTES_MAX - 1;
	return (void *)((char *)fl_own(task, stack) + offset);
}

/* Reads one register through fl_near_pt_regs(). */
#define fl_near_register(place) fl_register(place)

#else

static __always_inline const struct pt_regs *fl_near_pt_regs(struct task_struct *task)
{
	return fl_has_task_pt_regs() ? (void *)bpf_task_pt_regs(task) : fl_pt_regs();
}

/* Reads one register through fl_near_pt_regs(): by a load where a helper has given the place with its type. */
#define fl_near_register(place)                    \
	({                                         \
		__typeof__((place) + 0) near;      \
		if (fl_has_task_pt_regs())         \
			near = (place);            \
		else                               \
			near = fl_register(place); \
		near;                              \
	})

#endif

#endif
