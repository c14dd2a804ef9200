/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Decides whether trap number, error code and address belong to the signal at hand. Nothing else decides it.
 *
 * The kernel keeps the last trap of each thread and never clears it, and a new thread inherits it. A signal that comes without
 * a trap therefore finds an old one there: a handler's frame that found no room, rt_sigreturn(2) of a damaged frame, a signal
 * that a process has forged. FL_HAS_TRAP and FL_HAS_PAGE_FAULT are set where the trap is the signal's, FL_NO_TRAP where none is;
 * where nothing proves either, none of them.
 */
#ifndef FL_TRAP_BPF_H
#define FL_TRAP_BPF_H

#include "regs.bpf.h"
#include "signal.h"
#include "vma.bpf.h"

/* Codes that the kernel gives only for page faults, and for accesses by a pointer with a wrong tag. */
static __always_inline bool fl_needs_access(u32 signal, s32 code)
{
	return signal == FL_SIGSEGV ? code == SEGV_MAPERR || code == SEGV_ACCERR || code == SEGV_MTESERR
				    : signal == FL_SIGBUS && code == BUS_ADRERR;
}

/* The processor has only noted that a tag was wrong, and not where: siginfo has no address. */
static __always_inline bool fl_is_noted(u32 signal, s32 code)
{
	return signal == FL_SIGSEGV && code == SEGV_MTEAERR;
}

/* Does the thread come from a call by which it may send itself a siginfo with any code? */
static __always_inline bool fl_may_forge(const struct fl_crash *record, u32 entry)
{
	s32 call = record->syscall;

	return entry == FL_BY_CALL &&
	       (call == FL_NR_RT_SIGQUEUEINFO || call == FL_NR_RT_TGSIGQUEUEINFO || call == FL_NR_PIDFD_SEND_SIGNAL);
}

/* Has the process waited for a child? What each has used, a switch at least, is added to what the process's children have used. */
static __always_inline bool fl_has_waited(struct task_struct *task)
{
	return fl_read(task, signal, cnvcsw) || fl_read(task, signal, cnivcsw) || fl_read(task, signal, cmin_flt);
}

/* May a signal whose siginfo has no fault be the exit signal of a child (the lowest byte of clone's flags)? Then it has the child's pid. */
static __always_inline bool fl_may_be_childs(struct task_struct *task, u64 address)
{
	const void *none = (const char *)task + bpf_core_field_offset(struct task_struct, children);

	return (u32)address &&
	       (fl_read(task, signal, nr_threads) > 1 || fl_read(task, children.next) != none || fl_has_waited(task));
}

/*
 * Is this a code of a fault without it? No system call ends in the signal of a page fault, or of an address that is not aligned; and where an
 * instruction can't be carried out, a calculation fails, a step ends or seccomp refuses a call, the instruction's address is the signal's.
 */
static __always_inline bool fl_is_no_fault(const struct fl_crash *record, struct task_struct *task, u32 entry)
{
	bool is_elsewhere =
		record->flags & FL_HAS_REGISTERS && record->fault_address != fl_instruction_pointer(&record->registers);

	switch (record->signal) {
	case FL_SIGFPE:
	case FL_SIGILL:
		return is_elsewhere;
	case FL_SIGTRAP:
		return is_elsewhere && record->si_code <= TRAP_TRACE;
	case FL_SIGSYS:
		return is_elsewhere || (record->si_code == FL_SYS_SECCOMP && !fl_read(task, seccomp.mode));
	case FL_SIGBUS:
		if (record->si_code == BUS_ADRALN)
			return entry == FL_BY_CALL;
	}
	return fl_needs_access(record->signal, record->si_code);
}

/* The traps that can be the reason of this signal with SI_KERNEL: bit N is trap N. */
static __always_inline u64 fl_traps_of(u32 signal)
{
	switch (signal) {
	case FL_SIGSEGV:
		return FL_TRAPS_OF_SIGSEGV;
	case FL_SIGBUS:
		return FL_TRAPS_OF_SIGBUS;
	case FL_SIGTRAP:
		return FL_TRAPS_OF_SIGTRAP;
	case FL_SIGFPE:
		return FL_TRAPS_OF_SIGFPE;
	default:
		return 0;
	}
}

/* Can the kernel write from `low` up to `high`? Also where the stack will grow. */
static __always_inline bool fl_is_writable(u64 mm, u64 low, u64 high)
{
	struct vm_area_struct *vma = fl_vma_at(mm, low);

	if (!vma)
		vma = fl_growing_stack(mm, low);
	return vma && fl_read(vma, vm_flags) & VM_WRITE && fl_read(vma, vm_end) >= high;
}

/* Is there room for a signal's frame, on whichever stack its handler runs? 0: there may be none. */
__noinline int fl_has_frame_room(u64 mm, u64 stack_pointer)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 alternate = fl_read(task, sas_ss_sp), bytes = fl_read(task, sas_ss_size);

	if (stack_pointer - alternate < bytes)
		return stack_pointer - alternate >= FL_SIGNAL_FRAME_BYTES;
	if (bytes && !fl_is_writable(mm, alternate, alternate + bytes))
		return 0;
	return fl_is_writable(mm, stack_pointer - FL_SIGNAL_FRAME_BYTES, stack_pointer);
}

/* SI_KERNEL: the trap is the signal's, FL_HAS_TRAP; there was none, FL_NO_TRAP; 0: it may be an older one. */
static __always_inline u32 fl_judge_kernels(struct fl_crash *record, u64 mm, u32 entry)
{
	if (record->trap_nr > 63 || !(fl_traps_of(record->signal) >> record->trap_nr & 1) || entry == FL_BY_CALL)
		return FL_NO_TRAP;
	if (entry != FL_BY_TRAP || !(record->flags & FL_HAS_REGISTERS))
		return 0;
	if (record->trap_nr == FL_TRAP_BREAKPOINT)
		return fl_ran_breakpoint(&record->registers) ? FL_HAS_TRAP : 0;
	/* An interrupt may have brought a signal whose frame found no room. */
	if (record->signal == FL_SIGSEGV && !fl_has_frame_room(mm, fl_stack_pointer(&record->registers)))
		return 0;
	return FL_HAS_TRAP;
}

/*
 * Judges record->trap_nr and error_code by the record's signal, address and registers; `address`: of
 * the trap, if it was a page fault. `entry`: enum fl_entry. Global: verified once.
 */
__noinline int fl_judge_trap(u64 mm, u64 address, u32 entry)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct task_struct *task = (void *)bpf_get_current_task();
	bool is_page_fault;
	u32 flags;

	if (!record || record->si_code <= 0)
		return 0;
	if (fl_is_noted(record->signal, record->si_code)) {
		struct task_struct *own = fl_current();

		if (!fl_may_note_tags(own))
			record->flags |= FL_IS_FORGED | FL_NO_TRAP;
		return 0;
	}
	if (record->si_code == SI_KERNEL) {
		flags = fl_judge_kernels(record, mm, entry);
		record->flags |= flags;
		return 0;
	}
	if (!(record->flags & (FL_HAS_ADDRESS | FL_HAS_SYSCALL)))
		return 0;
	is_page_fault = fl_is_page_fault(record);
	if (record->signal != FL_SIGSYS && (is_page_fault || fl_is_tag_check(record)) &&
	    address == record->fault_address && entry != FL_BY_CALL) {
		record->flags |= is_page_fault ? FL_HAS_TRAP | FL_HAS_PAGE_FAULT : FL_HAS_TRAP;
	} else if (fl_is_no_fault(record, task, entry)) {
		/* rt_sigqueueinfo(2): a process may send itself any code. */
		if (!fl_may_forge(record, entry) && fl_may_be_childs(task, record->fault_address))
			record->flags |= FL_MAY_BE_CHILDS;
		record->fault_address = 0;
		if (record->flags & FL_HAS_SYSCALL)
			record->syscall = fl_register(fl_regs_call(fl_pt_regs()));
		record->flags = (record->flags & ~(FL_HAS_ADDRESS | FL_HAS_SYSCALL)) | FL_IS_FORGED | FL_NO_TRAP;
	}
	return 0;
}

#endif
