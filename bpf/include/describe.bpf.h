/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a record says about a death, apart from the task that died: the signal, the registers and frames, the memory around the fault and the stack
 * pointer, the program.
 */
#ifndef FL_DESCRIBE_BPF_H
#define FL_DESCRIBE_BPF_H

#include "filter.bpf.h"
#include "sender.bpf.h"
#include "stack.bpf.h"
#include "task.bpf.h"
#include "trap.bpf.h"

/* The signal's code, and its address or sender. The thread's last trap is judged later. */
static __always_inline void fl_describe_signal(struct fl_crash *record, struct task_struct *task,
					       struct kernel_siginfo *info)
{
	u32 signal = record->signal;
	struct fl_signal_head head = {};
	s32 code;

	fl_read_head(&head, info);
	code = head.code;
	record->si_code = code;
	record->flags |= FL_HAS_CODE;
	if (code == SI_USER || code == SI_TKILL || code == SI_QUEUE || code == SI_MESGQ) {
		record->sender_pid = fl_read(info, _sifields._kill._pid);
		record->sender_uid = fl_read(info, _sifields._kill._uid);
		record->flags |= FL_HAS_SENDER;
		return;
	}
	if (code <= 0)
		return;
	record->trap_nr = fl_last_trap_nr(task);
	record->error_code = fl_last_error_code(task);
	if (code == SI_KERNEL)
		return;
	if (signal == FL_SIGSYS) {
		record->fault_address = (u64)fl_read(info, _sifields._sigsys._call_addr);
		record->syscall = fl_read(info, _sifields._sigsys._syscall);
		record->syscall_arch = fl_read(info, _sifields._sigsys._arch);
		record->flags |= FL_HAS_SYSCALL;
		return;
	}
	if (!(FL_FAULTS & FL_BIT(signal)) || fl_is_noted(signal, code))
		return;
	record->fault_address = fl_untagged(head.address);
	record->flags |= FL_HAS_ADDRESS;
}

/*
 * Describes the memory around `address`: the mapping that holds it in `at`; if there is none, or it is a guard page, its neighbours in
 * `under` and `over`.
 */
static __always_inline void fl_describe_around(u64 mm, u64 address, struct fl_vma *at, struct fl_vma *under,
					       struct fl_vma *over)
{
	struct vm_area_struct *vma = fl_vma_at(mm, address), *below = NULL, *above = NULL;

	if (vma) {
		fl_describe_vma(at, vma);
		if (at->permissions & (FL_READABLE | FL_WRITABLE | FL_EXECUTABLE))
			return;
		above = fl_vma_at(mm, at->vm_end);
		below = fl_vma_at(mm, at->vm_start - 1);
	} else {
		fl_vma_neighbours(mm, &below, &above);
	}
	if (below && under)
		fl_describe_vma(under, below);
	if (above)
		fl_describe_vma(over, above);
}

/* The memory around the fault, and the places of heap and stack. */
__noinline int fl_describe_memory(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct task_struct *task = (void *)bpf_get_current_task();
	struct mm_struct *of = (void *)mm;

	if (!record)
		return 1;
	record->start_brk = fl_read(of, start_brk);
	record->brk = fl_read(of, brk);
	record->start_stack = fl_read(of, start_stack);
	record->vdso = (u64)fl_read(of, context.vdso);
	record->stack_limit = fl_read(task, signal, rlim[RLIMIT_STACK].rlim_cur);
	if (record->flags & FL_HAS_ADDRESS)
		fl_describe_around(mm, record->fault_address, &record->vma, &record->vma_below, &record->vma_above);
	return 0;
}

#define FL_LARGEST_FRAME (1ULL << 30) /* farther away it is a broken stack pointer */

/*
 * The stack of a frame that is larger than what was left: the stack pointer is below the stack's guard, or the main thread's is anywhere.
 * A function of its own, as the next one.
 */
__noinline int fl_describe_left_stack(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct task_struct *task = (void *)bpf_get_current_task();
	struct vm_area_struct *stack = NULL;

	if (!record || record->stack_vma.permissions & FL_WRITABLE)
		return 1;
	if (!record->stack_vma.vm_end && record->stack_above.vm_end &&
	    !(record->stack_above.permissions & (FL_READABLE | FL_WRITABLE | FL_EXECUTABLE)))
		stack = fl_vma_at(mm, record->stack_above.vm_end);
	else if (fl_read(task, pid) == fl_read(task, tgid) && !(record->stack_above.permissions & FL_WRITABLE) &&
		 record->start_stack - fl_stack_pointer(&record->registers) <= FL_LARGEST_FRAME)
		stack = fl_vma_at(mm, record->start_stack);
	if (stack && fl_read(stack, vm_flags) & VM_WRITE)
		fl_describe_vma(&record->stack_above, stack);
	return 0;
}

/* The memory around the stack pointer. A function of its own, because old verifiers have too small a stack for both. */
__noinline int fl_describe_stack(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct vm_area_struct *below;
	u64 start;

	if (!record || !record->frame_count)
		return 1;
	fl_describe_around(mm, fl_stack_pointer(&record->registers), &record->stack_vma, NULL, &record->stack_above);
	fl_describe_left_stack(mm);
	start = record->stack_vma.vm_start;
	if (!record->stack_vma.vm_end || fl_stack_pointer(&record->registers) - start >= FL_SIGNAL_FRAME_BYTES)
		return 0;
	below = fl_vma_at(mm, start - 1);
	if (below)
		fl_describe_vma(&record->stack_below, below);
	return 0;
}

/* The program that ran: its file, and its build id from where its code is mapped. */
__noinline int fl_describe_exe(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct mm_struct *of = (void *)mm;
	struct vm_area_struct *vma;
	struct file *file = fl_read(of, exe_file);
	u32 exe = fl_add_file((u64)file);

	if (!record)
		return 1;
	record->exe = exe;
	if (!exe)
		return 0;
	vma = fl_vma_at(mm, fl_read(of, start_code));
	if (vma && fl_inode_of(fl_read(vma, vm_file)) == fl_inode_of(file))
		fl_identify(mm, (u64)vma, exe);
	return 0;
}

/*
 * Describes the signal and the registers for fl_begin_record(). `info`: struct kernel_siginfo, 0: none. Returns whether the frames can be
 * walked. Global, so that the rest is verified once, and not for each of the many ways through it.
 */
__noinline int fl_begin_parts(u64 info, u32 signal, u32 disposition)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct task_struct *task = fl_current();
	struct mm_struct *mm = fl_read(task, mm);
	int entry;

	if (!record)
		return 0;
	__builtin_memset(record, 0, __builtin_offsetof(struct fl_crash, frames));
	record->timestamp_ns = bpf_ktime_get_boot_ns();
	record->signal = signal;
	record->disposition = disposition;
	record->group = ~0U;
	entry = fl_add_registers();
	if (entry == FL_BY_CALL)
		record->flags |= FL_IN_CALL;
	if (info) {
		fl_describe_signal(record, task, (void *)info);
		fl_judge_trap((u64)mm, fl_last_trap_address(task), entry);
	}
	if (record->flags & FL_HAS_SENDER)
		record->pid_in_namespace = fl_pid_in_namespace(task);
	if (info)
		fl_judge_sender(record, task, entry);
	if (record->flags & FL_HAS_CODE && !(record->flags & FL_IS_FORGED) &&
	    (!(record->flags & FL_HAS_SENDER) || record->sender_pid == (s32)record->pid_in_namespace))
		record->flags |= FL_PLACE_COUNTS;
	if (fl_config.senders && signal)
		fl_add_sender(record, task, signal);
	return mm && record->flags & FL_HAS_REGISTERS;
}

/*
 * Begins the record with the parts that groups are made of: the signal, the registers, the frames. The walk is the longest chain of calls
 * that there is, so it begins here and not in fl_begin_parts(), whose stack it would add to.
 */
static __always_inline void fl_begin_record(u64 info, u32 signal, u32 disposition)
{
	if (fl_begin_parts(info, signal, disposition))
		fl_add_frames((u64)fl_read(fl_current(), mm));
}

/* The bytes of the instruction that the thread was at. If they reach into a page that isn't there, they are cut at its border. */
static __always_inline void fl_add_code(struct fl_crash *record)
{
	u64 at = fl_instruction_pointer(&record->registers);
	u32 left = fl_page_of(at) + fl_page_bytes - at;

	record->code_length = 0;
	if (!bpf_probe_read_user(record->code, FL_CODE_BYTES, (const void *)at))
		record->code_length = FL_CODE_BYTES;
	else if (left < FL_CODE_BYTES &&
		 !bpf_probe_read_user(record->code, left & (FL_CODE_BYTES - 1), (const void *)at))
		record->code_length = left;
}

#endif
