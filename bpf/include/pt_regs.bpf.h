/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the kernel keeps the user's registers of the current task, as they were when it entered the kernel.
 */
#ifndef FL_PT_REGS_BPF_H
#define FL_PT_REGS_BPF_H

#include "kernel.h"

/*
 * The current task's pt_regs: where the user's registers are.
 *
 * bpf_task_pt_regs() came with v5.15. Before it, pt_regs lies at the top of the kernel stack; no kernel that lacks the
 * helper pads that place (CONFIG_X86_FRED, v6.9, would).
 */
static __always_inline const struct pt_regs *fl_pt_regs(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (bpf_core_enum_value_exists(enum bpf_func_id___fl, BPF_FUNC_task_pt_regs___fl))
		return (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
	return (void *)((char *)fl_read(task, stack) + FL_KERNEL_STACK_BYTES - sizeof(struct pt_regs));
}

/* How far below the top of the kernel stack pt_regs may end: with CONFIG_X86_FRED (v6.9) there is room for two more words. */
#define FL_REGS_PADDING_MAX 16

/*
 * The same without the helper, where the segment registers show that we have the right place: a call of a helper costs ten
 * to forty times as much as a load. `task` is the current one.
 */
static __always_inline const struct pt_regs *fl_near_pt_regs(struct task_struct *task)
{
	const char *top = (const char *)fl_read(task, stack) + FL_KERNEL_STACK_BYTES - sizeof(struct pt_regs);
	const struct pt_regs *regs;

#pragma unroll
	for (int padding = 0; padding <= FL_REGS_PADDING_MAX; padding += FL_REGS_PADDING_MAX) {
		u64 cs = 0, ss = 0;

		regs = (const void *)(top - padding);
		bpf_probe_read_kernel(&cs, sizeof(cs), &regs->cs);
		bpf_probe_read_kernel(&ss, sizeof(ss), &regs->ss);
		/* The upper halves hold FRED's own bits. */
		if ((u16)cs == FL_USER_CS && (u16)ss == FL_USER_DS)
			return regs;
	}
	return fl_pt_regs();
}

#endif
