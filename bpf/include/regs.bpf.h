/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The user's registers of the current task, as they were when it entered the kernel.
 */
#ifndef FL_REGS_BPF_H
#define FL_REGS_BPF_H

#include "kernel.h"
#include "record.bpf.h"

/*
 * Reads the registers of the current task into the record. 0: well. Global, so that pt_regs isn't on its caller's stack.
 *
 * bpf_task_pt_regs() came with v5.15. Before it, pt_regs lies at the top of the kernel stack; no kernel that lacks the
 * helper pads that place (CONFIG_X86_FRED, v6.9, would), and the segment registers prove that we read the right one.
 */
__noinline int fl_add_registers(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct pt_regs regs = {};

	if (!record)
		return -1;

	if (bpf_core_enum_value_exists(enum bpf_func_id___fl, BPF_FUNC_task_pt_regs___fl)) {
		const void *at = (const void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());

		if (fl_copy(&regs, sizeof(regs), at))
			return -1;
	} else {
		struct task_struct *task = (void *)bpf_get_current_task();
		const char *stack = fl_read(task, stack);

		if (fl_copy(&regs, sizeof(regs), stack + FL_KERNEL_STACK_BYTES - sizeof(regs)))
			return -1;
		if (regs.ss != FL_USER_DS)
			return -1;
	}
	fl_registers_from(&record->registers, &regs);
	record->flags |= FL_HAS_REGISTERS;
	if (fl_is_compat(&record->registers))
		record->flags |= FL_IS_COMPAT;
	return 0;
}

#endif
