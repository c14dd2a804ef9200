/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Caught faults: a handler ran, and the process ended nevertheless. The record is then that of the fault, not of the end.
 *
 * Whether a handled fault ended the process is known only when the process ends, and the registers have changed by then. So the place of
 * each thread's last fault is kept: a few words, because a process may handle a million faults a second. At the end the rest is read
 * where the kernel itself has put it: in the signal frame that the handler runs on.
 * Refuses to guess: a signal frame on the stack may be a left-over in a buffer that was never filled. Whether the handler was
 * left is proved in user space, by unwinding from the end; for that the samples tell both, the fault and the end.
 */
#ifndef FL_CAUGHT_BPF_H
#define FL_CAUGHT_BPF_H

#include "filter.bpf.h"
#include "regs.bpf.h"
#include "runtime_go.bpf.h"
#include "signal.h"
#include "stack.bpf.h"
#include "task.bpf.h"
#include "thread.bpf.h"
#include "trap.bpf.h"

/* Where the current task was in its program. */
struct fl_pointers {
	u64 instruction_pointer;
	u64 stack_pointer;
	u64 frame_pointer;
};

static __always_inline void fl_pointers_from(struct fl_pointers *pointers, const volatile struct pt_regs *regs)
{
	pointers->instruction_pointer = fl_regs_ip(regs);
	pointers->stack_pointer = fl_regs_sp(regs);
	pointers->frame_pointer = fl_regs_fp(regs);
}

#ifndef FL_TYPED
FL_SCRATCH(fl_regs_tops, struct fl_regs_top);

/* The registers of the task on whose kernel stack `at` lies. A pointer with a type is a number once it has been in `memory`. */
static __always_inline const struct pt_regs *fl_regs_above(volatile u64 *memory, const void *at)
{
	*memory = (u64)at;
	return (void *)((*memory & ~((u64)FL_KERNEL_STACK_BYTES - 1)) + FL_PT_REGS_OFFSET);
}
#endif

/* `on_stack`: something that lies on the kernel stack of the task, if one is known. */
static __always_inline void fl_read_pointers(struct fl_pointers *pointers, struct task_struct *task,
					     const void *on_stack)
{
#ifdef FL_TYPED
	fl_pointers_from(pointers, fl_rdonly_cast(fl_near_pt_regs(task), FL_MARK_PT_REGS));
#else
	const struct pt_regs *regs;
	struct fl_regs_top *top;

	if (fl_has_task_pt_regs()) {
		fl_pointers_from(pointers, fl_near_pt_regs(task));
		return;
	}
	top = fl_scratch(&fl_regs_tops);
	if (!top)
		return;
	/* Where the stack begins follows from its size, and needs no read. */
	regs = on_stack ? fl_regs_above(&top->sp, on_stack) : fl_near_pt_regs(task);
	/* Two of them lie near each other: one read costs less than two, and than one of all. */
	if (bpf_probe_read_kernel(top, sizeof(*top), &fl_regs_top(regs)))
		return;
	pointers->instruction_pointer = top->ip;
	pointers->stack_pointer = top->sp;
	pointers->frame_pointer = fl_register(fl_regs_fp(regs));
#endif
}

/* A part of the stack, with the word behind it, because pairs are searched. */
#define FL_SCAN_WORDS 64
#define FL_SCAN_STEPS 128 /* 64 KiB: handlers write reports, and use large buffers */
struct fl_scan {
	u64 words[FL_SCAN_WORDS + 1];
	u64 at;            /* of the next part */
	u64 stack_pointer; /* wanted, and behind it */
	u64 instruction_pointer;
	u64 found; /* the address of such a pair */
	struct fl_signal_frame frame;
};
FL_SCRATCH(fl_scans, struct fl_scan);

/* Keeps the place of a fault of the current thread, `owner`: behind those of the handlers that it has not left. */
static __always_inline void fl_keep_fault(struct fl_thread *thread, struct task_struct *task, u64 owner,
					  const struct fl_handled_fault *now)
{
	u64 stack_pointer = now->stack_pointer;
	u32 exec = fl_own(task, self_exec_id), count;

	thread->is_known = 0;
	if (thread->owner != owner || thread->exec != exec) {
		thread->owner = owner;
		thread->exec = exec;
		thread->count = 0;
	}
	count = thread->count;
#pragma unroll
	for (u32 last = FL_NESTED_MAX; last > 0; last--) {
		if (count == last && thread->faults[last - 1].stack_pointer <= stack_pointer &&
		    (thread->faults[last - 1].stack_pointer == stack_pointer ||
		     !fl_on_alternate_stack(task, stack_pointer)))
			count = last - 1;
	}
	if (count >= FL_NESTED_MAX)
		count = FL_NESTED_MAX - 1;
	thread->faults[count] = *now;
	thread->count = count + 1;
}

/*
 * The current task is about to handle a signal: keeps its place if it is a fault. `address`: of its siginfo. Returns what is kept of the
 * thread, which gets into `owner`, if its last fault was at the same place; NULL: it was elsewhere, or this is none.
 */
static __always_inline struct fl_thread *fl_remember(struct task_struct *task, const struct fl_pointers *pointers,
						     u64 address, u32 signal, s32 si_code, u64 *owner)
{
	struct fl_handled_fault now = {.instruction_pointer = pointers->instruction_pointer,
				       .stack_pointer = pointers->stack_pointer,
				       .frame_pointer = pointers->frame_pointer,
				       .address = fl_untagged(address),
				       .jiffies = (u32)bpf_jiffies64(),
				       .si_code = si_code,
				       .signal = signal},
				*last;
	struct fl_thread *thread;

	/* The kernel has no larger code: no fault. */
	if (si_code <= 0 || si_code > 0xffff || !(FL_FAULTS & FL_BIT(signal)))
		return NULL;
	*owner = fl_owner_of(task);
	thread = fl_thread_for(task, *owner);
	if (!thread)
		return NULL;
	last = thread->faults;
	if (thread->count != 1 || last->instruction_pointer != now.instruction_pointer ||
	    last->stack_pointer != now.stack_pointer || last->si_code != si_code || last->signal != signal ||
	    thread->owner != *owner) {
		fl_keep_fault(thread, task, *owner, &now);
		return NULL;
	}
	last->frame_pointer = now.frame_pointer;
	last->address = now.address;
	last->jiffies = now.jiffies;
	return thread;
}

/* Is the pair at `at` part of a signal frame? 0: it isn't, and the search goes on behind it. Global: verified once, and not for each word. */
__noinline int fl_scan_pair(u64 at)
{
	struct fl_scan *scan = fl_scratch(&fl_scans);

	if (!scan)
		return 1;
	scan->at = at + 8;
	if (bpf_probe_read_user(&scan->frame, sizeof(scan->frame), (const void *)fl_signal_frame_at(at)) ||
	    !fl_is_signal_frame(&scan->frame))
		return 0;
	scan->found = at;
	return 1;
}

/*
 * Looks for the pair in the next part of the stack, where a signal frame has it: an unwinder on its way through the frame has it as well. 0: not
 * there; 1: scan->found.
 */
__noinline int fl_scan_step(void)
{
	struct fl_scan *scan = fl_scratch(&fl_scans);
	u64 at;

	if (!scan)
		return 1;
	at = scan->at;
	if (bpf_probe_read_user(scan->words, sizeof(scan->words), (const void *)at)) {
		/* A page that was never used, as in a large buffer of the handler. */
		scan->at = fl_page_of(at) + fl_page_bytes;
		return 0;
	}
	for (u32 i = 0; i < FL_SCAN_WORDS; i++) {
		if (scan->words[i] == scan->stack_pointer && scan->words[i + 1] == scan->instruction_pointer)
			return fl_scan_pair(at + i * 8);
	}
	scan->at = at + FL_SCAN_WORDS * 8;
	return 0;
}

/* Finds the signal frame of a fault at this place, on the stack that is in use from `from` on. 1: it is in fl_scans. */
__noinline int fl_find_signal_frame(u64 from, u64 stack_pointer, u64 instruction_pointer)
{
	struct fl_scan *scan = fl_scratch(&fl_scans);

	if (!scan)
		return 0;
	scan->at = from & ~7ULL;
	scan->stack_pointer = stack_pointer;
	scan->instruction_pointer = instruction_pointer;
	scan->found = 0;
	for (int i = 0; i < FL_SCAN_STEPS; i++) {
		if (fl_scan_step())
			break;
	}
	return scan->found != 0;
}

/* What is known of a fault that a thread has handled, and that may be its end. */
enum fl_recalled {
	FL_NOT_RECALLED = 0,
	FL_RECALLED = 1,         /* it is */
	FL_MAYBE_RECALLED = 256, /* the handler may have been left: user space proves it */
};

/* Does the current thread end because of the fault `index`, which it has handled? If it may, the record has it, except the frames. */
__noinline int fl_recall_one(u32 index, u32 signal, s32 code)
{
	struct task_struct *task = fl_current();
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_scan *scan = fl_scratch(&fl_scans);
	struct fl_thread *thread = fl_thread_of(task);
	struct fl_handled_fault *fault;
	bool is_stale;
	int entry;

	barrier_var(index);
	if (!record || !scan || !thread || index >= FL_NESTED_MAX || index >= thread->count)
		return 0;
	fault = &thread->faults[index];
	is_stale = fl_is_stale(fault);
	__builtin_memset(record, 0, __builtin_offsetof(struct fl_crash, frames));
	entry = fl_add_registers();
	if (is_stale || entry < 0)
		return 0;
	record->signal = fault->signal;
	record->si_code = fault->si_code;
	if (fault->si_code != SI_KERNEL && !fl_is_noted(fault->signal, fault->si_code)) {
		record->fault_address = fault->address;
		record->flags |= FL_HAS_ADDRESS;
	}
	if (fl_instruction_pointer(&record->registers) == fault->instruction_pointer &&
	    fl_stack_pointer(&record->registers) == fault->stack_pointer) {
		/*
		 * The handler has returned, or could not be called (no room for the signal frame: SI_KERNEL). Any other signal of
		 * the kernel is the same fault once more, whose record needs nothing from here.
		 */
		if (signal && code > 0 && !(code == SI_KERNEL && fault->si_code != SI_KERNEL))
			return 0;
		record->trap_nr = fl_last_trap_nr(task);
		record->error_code = fl_last_error_code(task);
		/* The handler may have had a trap of its own, which doesn't refute this one. */
		if (fault->si_code == SI_KERNEL || fl_last_trap_address(task) == fault->address)
			fl_judge_trap((u64)fl_read(task, mm), fault->address, entry);
		record->flags &= ~FL_NO_TRAP;
	} else if (!(record->flags & FL_IS_COMPAT) &&
		   fl_find_signal_frame(fl_stack_pointer(&record->registers), fault->stack_pointer,
					fault->instruction_pointer)) {
		record->signal_frame = scan->found;
		fl_registers_of_frame(&record->registers, &scan->frame);
		record->trap_nr = fl_frame_trap_nr(&scan->frame);
		record->error_code = fl_frame_error_code(&scan->frame);
		entry = fl_may_follow_syscall(&record->registers) ? FL_MAYBE_BY_CALL : FL_BY_TRAP;
		fl_judge_trap((u64)fl_read(task, mm), fl_frame_address(&scan->frame), entry);
	} else {
		u64 caller = 0, frame = fl_go_panic_frame(signal, code, fault->instruction_pointer,
							  fault->stack_pointer, fl_frame_pointer(&record->registers));

		if (!frame || bpf_probe_read_user(&caller, sizeof(caller), (const void *)frame))
			return 0;
		fl_place_registers(&record->registers, fault->instruction_pointer,
				   fl_stack_above_made_up_call(frame, fault->stack_pointer), caller);
		record->flags &= ~FL_HAS_REGISTERS;
	}
	record->flags |= FL_HAS_CODE;
	if (!(record->flags & FL_IS_FORGED))
		record->flags |= FL_PLACE_COUNTS;
	record->timestamp_ns = bpf_ktime_get_boot_ns();
	record->group = ~0U;
	record->pid_in_namespace = fl_pid_in_namespace(task);
	record->disposition = record->signal_frame ? FL_DISPOSED_MAYBE_CAUGHT : FL_DISPOSED_CAUGHT;
	record->end_signal = signal;
	record->end_code = code;
	return record->signal_frame ? FL_MAYBE_RECALLED : FL_RECALLED;
}

/*
 * Does the current thread end because of a fault that it has handled? If it may, the record is begun with the first such fault: enum
 * fl_recalled plus the fault's index. `signal` ends it, with the si_code `code`; 0: it exits with `code`. `by_itself`: no other process has
 * ended it.
 */
__noinline int fl_recall(u32 signal, s32 code, u32 by_itself)
{
	struct task_struct *task = fl_current();
	struct fl_thread *thread = fl_thread_of(task);

	if (!by_itself || !fl_does_recall(thread, task) || !fl_read(task, mm))
		return 0;
	for (u32 index = 0; index < FL_NESTED_MAX; index++) {
		int recalled;

		if (index >= thread->count)
			break;
		recalled = fl_recall_one(index, signal, code);
		if (!recalled)
			continue;
		/* The task is asked for again: to keep it takes more of the stack than the calls from here leave (tests/abi/stack.rs). */
		fl_add_frames((u64)fl_read(fl_current(), mm));
		return recalled + index;
	}
	return 0;
}

/*
 * Adds to the record of the current thread's end the last fault that it has handled, or the one that is the end if this is proved. A function of
 * its own, because old verifiers have too small a stack for it and its callers.
 */
__noinline int fl_add_earlier(u32 index)
{
	struct task_struct *task = fl_current();
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_thread *thread = fl_thread_of(task);
	struct fl_handled_fault *fault;

	if (!record || !fl_does_recall(thread, task))
		return 0;
	if (index >= FL_NESTED_MAX)
		index = thread->count - 1;
	barrier_var(index);
	if (index >= FL_NESTED_MAX)
		return 0;
	fault = &thread->faults[index];
	if (fl_is_stale(fault))
		return 0;
	record->earlier_signal = fault->signal;
	record->earlier_code = fault->si_code;
	record->earlier_address = fault->address;
	record->earlier_place = fault->instruction_pointer;
	return 0;
}

#endif
