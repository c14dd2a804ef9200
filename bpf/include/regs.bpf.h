/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The user's registers of the current task, as they were when it entered the kernel, in the record.
 */
#ifndef FL_REGS_BPF_H
#define FL_REGS_BPF_H

#include "pt_regs.bpf.h"
#include "record.bpf.h"

/* How the thread came into the kernel. */
enum fl_entry { FL_BY_TRAP = 0, FL_MAYBE_BY_CALL, FL_BY_CALL };

FL_SCRATCH(fl_taken, fl_taken_regs); /* too large for a stack that all functions of a chain of calls share */

/* Reads the registers of the current task into the record. enum fl_entry; negative: there are none. */
__noinline int fl_add_registers(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	const struct pt_regs *at = fl_pt_regs(); /* here, or it is called for each word */
	fl_taken_regs *regs = fl_scratch(&fl_taken);

	if (!record || !regs || fl_take_regs(regs, record, at))
		return -1;
	/* If the place was not given by a helper, the processor's mode proves that it is the right one. */
	if (!bpf_core_enum_value_exists(enum bpf_func_id___fl, BPF_FUNC_task_pt_regs___fl) && !fl_is_user_regs(regs))
		return -1;
	fl_keep_regs(record, regs);
	record->flags |= FL_HAS_REGISTERS;
	if (fl_is_compat(&record->registers))
		record->flags |= FL_IS_COMPAT;
	if (fl_is_syscall(regs)) {
		record->syscall = fl_syscall_number(regs);
		return FL_BY_CALL;
	}
	return fl_may_follow_syscall(&record->registers) ? FL_MAYBE_BY_CALL : FL_BY_TRAP;
}

#endif
