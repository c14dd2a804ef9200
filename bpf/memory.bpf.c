// SPDX-License-Identifier: GPL-2.0-only
/*
 * `faultline memory`: memory that becomes executable, and its content at that moment.
 *
 * Driven by the system calls that map memory: at their end, when the kernel has done its work, and those that take memory away also at
 * their beginning, while it is still there. By classic tracepoints (calls without one cost nearly nothing more), by the raw ones of all
 * system calls, or by kprobes. The bodies are the same, and read the arguments from the user's registers, where the kernel keeps them.
 * Refuses to change anything: pages that are not in memory are left to user space.
 */
#include "abi/memory.h"
#include "memory_call.bpf.h"
#include "signal.h"

char LICENSE[] SEC("license") = "GPL";

const volatile struct fl_samples fl_samples = {};

/* --- the ways to get there --- */

/*
 * The body of programs on two hooks, the beginning and the end of a call, told apart by the register of the result (fl_is_begun()). Not
 * every architecture can tell them apart: there the programs are not loaded.
 */
static __always_inline int fl_on_sys_both(struct task_struct *task, const struct pt_regs *regs, u32 number)
{
	s64 result = fl_register(fl_regs_result(regs));

	if (fl_is_begun(result))
		fl_on_enter(task, regs, number);
	else
		fl_on_leave(task, regs, number, result);
	return 0;
}

/* Two hooks of each call that matters, told apart in fl_on_sys_both(): tracepoint/syscalls/sys_enter_* and sys_exit_*. */
SEC("tracepoint")
int fl_sys_both(struct fl_syscall_event *event)
{
	struct task_struct *task = fl_current();

	return fl_on_sys_both(task, fl_near_pt_regs(task), (u32)event->number);
}

/*
 * Two hooks of all calls, told apart in fl_on_sys_both(): sys_enter(struct pt_regs *regs, long number) and
 * sys_exit(struct pt_regs *regs, long result).
 */
SEC("raw_tp/sys_enter")
int BPF_PROG(fl_raw_sys_both, struct pt_regs *regs)
{
	u32 number = (u32)fl_register(fl_regs_call(regs));
	struct task_struct *task;

	switch (number) {
	case FL_NR_MMAP:
	case FL_NR_MPROTECT:
	case FL_NR_MUNMAP:
	case FL_NR_BRK:
	case FL_NR_MREMAP:
	case FL_NR_MADVISE:
	case FL_NR_SHMAT:
	case FL_NR_SHMDT:
	case FL_NR_EXECVE:
	case FL_NR_EXECVEAT:
	case FL_NR_EXIT:
	case FL_NR_EXIT_GROUP:
	case FL_NR_MEMFD_CREATE:
	case FL_NR_PKEY_MPROTECT:
		break;
	default:
		if (!FL_IS_COMPAT_MAPPING(number))
			return 0;
	}
	task = fl_current();
	if (fl_is_compat_call(task)) {
		if (FL_IS_COMPAT_MAPPING(number) && !fl_is_begun((s64)fl_register(fl_regs_result(regs))) &&
		    fl_watched())
			fl_count(FL_LOST_COMPAT);
		return 0;
	}
	return fl_on_sys_both(task, regs, number);
}

/*
 * mmap_lock_start_locking(struct mm_struct *mm, ...), v5.11: a task is about to change mappings, or to look them up. It shows the
 * beginning of a call without a tracepoint of calls, so that the entry of all calls stays as fast as it is. A thread that ends and gives
 * up its memory also comes here (exit_mm(), kernel/exit.c).
 */
SEC("raw_tp/mmap_lock_start_locking")
int BPF_PROG(fl_lock, struct mm_struct *mm)
{
	struct task_struct *task = fl_current();
	const struct pt_regs *regs = fl_near_pt_regs(task);
	u32 number = (u32)fl_register(fl_regs_call(regs));

	if (!fl_config.late_exit && fl_own(task, flags) & PF_EXITING) {
		if (mm && mm == fl_own(task, mm) && !fl_read(task, signal, live.counter))
			fl_before(task, FL_CALL_EXIT, 0, ~0ULL);
		return 0;
	}
	switch (number) {
	case FL_NR_MMAP:
		if (!(fl_register(fl_regs_3(regs)) & MAP_FIXED))
			return 0;
		break;
	case FL_NR_MUNMAP:
	case FL_NR_MREMAP:
	case FL_NR_MADVISE:
	case FL_NR_SHMDT:
	case FL_NR_EXECVE:
	case FL_NR_EXECVEAT:
		break;
	default:
		return 0;
	}
	/* Another mm is that of a new program, or of another process. */
	if (mm && mm == fl_own(task, mm))
		fl_on_enter(task, regs, number);
	return 0;
}

/* The kernel's wrapper of a system call, of const struct pt_regs *regs, by kprobe and kretprobe. */
SEC("kprobe")
int BPF_KPROBE(fl_call_begins, struct pt_regs *regs)
{
	fl_on_enter(fl_current(), regs, (u32)fl_register(fl_regs_call(regs)));
	return 0;
}

/* The calls whose end fl_call_ends is to see. */
SEC("kprobe")
int fl_expect_end(struct pt_regs *context)
{
	if (fl_watched())
		fl_count(FL_KPROBE_CALLS);
	return 0;
}

SEC("kretprobe")
int BPF_KRETPROBE(fl_call_ends, long result)
{
	struct task_struct *task = fl_current();
	const struct pt_regs *regs = fl_near_pt_regs(task);

	if (!fl_config.exec_mem && fl_watched())
		fl_count(FL_KPROBE_RETURNS);
	fl_on_leave(task, regs, (u32)fl_register(fl_regs_call(regs)), result);
	return 0;
}

/* --- what processes do --- */

static __always_inline void fl_send_life(enum fl_sample_kind kind, u32 pid, u32 ppid)
{
	struct fl_life life = {};

	life.kind = kind;
	life.pid = pid;
	life.ppid = ppid;
	life.timestamp_ns = bpf_ktime_get_boot_ns();
	if (bpf_ringbuf_output(&fl_ring, &life, sizeof(life), 0))
		fl_count(FL_LOST_RING_FULL);
}

/* A child has its parent's memory, with its content. */
SEC("raw_tp/sched_process_fork")
int BPF_PROG(fl_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 pid = fl_read(parent, tgid);
	u32 tgid = fl_read(child, tgid);
	struct fl_process *process;

	if (tgid == pid)
		return 0;
	if (fl_filter_config.by_descent)
		fl_follow_fork(parent, child);
	process = bpf_map_lookup_elem(&fl_processes, &pid);
	if (!process || !fl_config.follow) {
		bpf_map_delete_elem(&fl_processes, &tgid); /* of a process whose end was not seen: filter.bpf.h */
		return 0;
	}
	fl_watch(tgid, process->flags);
	if (process->flags)
		*fl_maker(tgid) = 1;
	fl_send_life(FL_SAMPLE_FORK, tgid, pid);
	return 0;
}

/* sched_process_exec(struct task_struct *task, ...): the new program is mapped, and has not run yet. */
SEC("raw_tp/sched_process_exec")
int BPF_PROG(fl_exec, struct task_struct *task)
{
	struct fl_process *process = fl_watched();
	struct fl_look *look;

	if (!process)
		return 0;
	process->flags = 0;
	look = fl_begin_look();
	if (!look)
		return 0;
	look->mm = (u64)fl_read(task, mm);
	look->timestamp_ns = bpf_ktime_get_boot_ns();
	look->call = FL_CALL_EXEC;
	look->flags = FL_HAS_RESULT;
	look->address = 0;
	look->end = ~0ULL;
	look->volatile_only = 0;
	/* First report that the old memory is gone, then the new mappings. */
	if (!fl_begin_record())
		fl_send_record();
	fl_look_around();
	fl_end_look(look);
	return 0;
}

/* sched_process_exit(struct task_struct *task, ...): the last thread's is the process's. */
SEC("raw_tp/sched_process_exit")
int BPF_PROG(fl_exit, struct task_struct *task)
{
	u32 tgid = fl_read(task, tgid);

	if (fl_filter_config.by_descent)
		fl_follow_exit(task);
	if (fl_read(task, signal, live.counter) != 0 || !bpf_map_lookup_elem(&fl_processes, &tgid))
		return 0;
	if (fl_config.late_exit)
		fl_before(task, FL_CALL_EXIT, 0, ~0ULL);
	bpf_map_delete_elem(&fl_processes, &tgid);
	fl_send_life(FL_SAMPLE_END, tgid, 0);
	return 0;
}

/* signal_deliver(int signal, struct kernel_siginfo *info, struct k_sigaction *action): a process may end by this signal. */
SEC("raw_tp/signal_deliver")
int BPF_PROG(fl_signal, u64 number, struct kernel_siginfo *info, struct k_sigaction *action)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if ((FL_DEFAULT_IGNORE | FL_DEFAULT_STOP) & FL_BIT((u32)number))
		return 0;
	if ((u32)number != FL_SIGKILL && (u64)fl_read(action, sa.sa_handler) != FL_SIG_DFL)
		return 0;
	fl_before(task, FL_CALL_EXIT, 0, ~0ULL);
	return 0;
}

/*
 * page_fault_user(unsigned long address, struct pt_regs *regs, unsigned long error_code): the first time that a page is
 * executed, as far as the processor asks. Attached only while a watched process has memory that can change by itself.
 */
SEC("raw_tp/page_fault_user")
int BPF_PROG(fl_fetch, u64 address, struct pt_regs *regs, u64 error_code)
{
	struct fl_process *process;
	struct fl_exec_fault fault = {};

	if (!fl_error_has(error_code, FL_PF_INSTR))
		return 0;
	process = fl_watched();
	if (!process || !(process->flags & FL_PROCESS_VOLATILE))
		return 0;
	fault.kind = FL_SAMPLE_FAULT;
	fault.pid = bpf_get_current_pid_tgid() >> 32;
	fault.tid = (u32)bpf_get_current_pid_tgid();
	fault.timestamp_ns = bpf_ktime_get_boot_ns();
	fault.address = address;
	if (bpf_ringbuf_output(&fl_ring, &fault, sizeof(fault), 0))
		fl_count(FL_LOST_RING_FULL);
	return 0;
}
