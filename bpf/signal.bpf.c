// SPDX-License-Identifier: GPL-2.0-only
/*
 * `faultline signal`: who sends which signal to whom, and which tasks begin, run another program and end.
 *
 * Driven by raw_tp/signal_generate, which runs where the signal is made, with interrupts off and the target's siglock held:
 * in the sender, or in any task that was running when the kernel made it. fork, exec and exit have programs of their own, which a
 * signal may interrupt: they share only the maps with the first.
 * Refuses to name a task that only happened to run as the sender.
 */
#include "abi/signal.h"
#include "cgroup.bpf.h"
#include "filter.bpf.h"
#include "oom.bpf.h"
#include "pair.bpf.h"
#include "path.bpf.h"
#include "reason.bpf.h"
#include "ring.bpf.h"
#include "signal.h"

char LICENSE[] SEC("license") = "GPL";

/* Never read: Rust gets only types of maps and variables. */
const volatile struct fl_samples {
	struct fl_signal signal;
	struct fl_oom oom;
} fl_samples = {};

/* --- --from and --to --- */

/* Does from[index], or to[index] if `is_target`, mean the process with this name and number? */
__noinline int fl_is_peer(u64 first, u64 second, u32 pid, u32 index, u32 is_target)
{
	union fl_name name = {{first, second}};
	const volatile struct fl_peer *peer;

	barrier_var(index);
	if (index >= FL_PEERS_MAX)
		return 0;
	peer = is_target ? &fl_config.to[index] : &fl_config.from[index];
	return peer->pid ? peer->pid == pid : fl_contains(&name, peer->name);
}

/* Is `task` one of those that --from names, or --to if `is_target`? */
static __always_inline bool fl_is_any_of(struct task_struct *task, u32 is_target, u32 count)
{
	union fl_name name;

	if (!fl_read_process_name(&name, task))
		return false;
	for (u32 i = 0; i < FL_PEERS_MAX; i++) {
		if (i >= count)
			break;
		if (fl_is_peer(name.words[0], name.words[1], fl_typed_pid(task), i, is_target))
			return true;
	}
	return false;
}

/* Is the current task, the sender, one of those that --from names? */
static __always_inline bool fl_is_wanted_sender(void)
{
	return fl_is_any_of((void *)bpf_get_current_task(), 0, fl_config.from_count);
}

/* --- signals --- */

static __always_inline void fl_describe_party(struct fl_party *party, struct task_struct *task)
{
	struct task_struct *leader = fl_read(task, group_leader);
	struct pid *pid = fl_read(task, signal, pids[PIDTYPE_TGID]);
	u32 level = fl_read(pid, level);
	struct upid *innermost = fl_upid(pid, level & 31);

	party->pid = fl_read(task, tgid);
	party->tid = fl_read(task, pid);
	party->pid_in_namespace = fl_read(innermost, nr);
	fl_copy(party->comm, FL_COMM_BYTES, &leader->comm);
}

/* Sends the record of a signal. */
static __always_inline int fl_send_signal(void *context, struct task_struct *task, struct kernel_siginfo *info,
					  struct task_struct *target, u32 number, s32 code, bool to_process,
					  enum fl_result result, bool has_sender)
{
	struct fl_signal signal = {};

	signal.kind = FL_SAMPLE_SIGNAL;
	signal.signal = number;
	signal.si_code = code;
	signal.result = result;
	signal.flags = FL_SIGNAL_HAS_CODE;
	if (to_process)
		signal.flags |= FL_SIGNAL_TO_PROCESS;
	fl_describe_party(&signal.target, target);
	if (has_sender) {
		signal.flags |= FL_SIGNAL_HAS_SENDER;
		fl_describe_party(&signal.sender, task);
		signal.sender.uid = (u32)bpf_get_current_uid_gid();
	}
	fl_find_reason(&signal.reason, task, info, target, number, code);
	signal.timestamp_ns = bpf_ktime_get_boot_ns();
	signal.cpu = bpf_get_smp_processor_id();
	if (number == FL_SIGKILL && (u64)info == FL_PRIV_INFO) {
		signal.cgroup = fl_read(target, cgroups, dfl_cgrp, kn, id);
		if (fl_measure_memory(&signal.memory, target))
			signal.flags |= FL_SIGNAL_HAS_MEMORY;
		if (signal.reason.kind == FL_REASON_NONE)
			fl_reason_memory(context, &signal.reason, target);
	}
	if (bpf_ringbuf_output(&fl_ring, &signal, sizeof(signal), fl_wake_flags(signal.timestamp_ns)))
		fl_count(FL_LOST_RING_FULL);
	else
		fl_count(FL_RECORDS);
	return 0;
}

/* A watched signal on its way to `target`. */
static __always_inline int fl_on_signal(void *context, u32 number, struct kernel_siginfo *info,
					struct task_struct *target, bool to_process, enum fl_result result)
{
	struct task_struct *task = fl_current();
	bool has_sender;
	s32 code;

	code = fl_code_of(info);
	has_sender = fl_is_sender(task, info, target, number, code);
	if (has_sender && fl_is_our_own(target))
		return 0;
	if (!fl_filter_task(target) && !(has_sender && fl_filter())) {
		fl_count(FL_FILTERED);
		return 0;
	}
	if ((fl_config.from_count && !(has_sender && fl_is_wanted_sender())) ||
	    (fl_config.to_count && !fl_is_any_of(target, 1, fl_config.to_count))) {
		fl_count(FL_FILTERED);
		return 0;
	}
	if (fl_config.pairs)
		fl_count_pair(number, result, has_sender ? task : NULL, target);
	else
		fl_count(FL_SIGNALS);
	if (!fl_config.records)
		return 0;
	return fl_send_signal(context, task, info, target, number, code, to_process, result, has_sender);
}

/*
 * Counts a signal of which nothing but that is wanted, and which one process sends to another or to itself by a system call. A summary of all
 * processes counts most signals here, each of which pays for each instruction. False: it is to be looked at as any other.
 */
static __always_inline bool fl_count_sent(u32 number, struct kernel_siginfo *info, struct task_struct *target,
					  enum fl_result result)
{
	struct fl_near_table *near = fl_scratch(&fl_near_pairs);
	struct task_struct *task = fl_current();
	u64 other = (u64)target;
	union fl_pair_words key;
	s32 code;

	if (!near || (u64)info <= FL_PRIV_INFO)
		return false;
	code = fl_argument(info, si_code);
	if (code != SI_USER) {
		barrier(); /* or clang asks for all three at once, by more instructions than for the one that most have */
		if (code != SI_TKILL && code != SI_QUEUE)
			return false;
	}
	barrier_var(other); /* or clang takes one task for the other, whose type the verifier may not know */
	key.words[0] = fl_pair_word(number, result, true);
	if (other == (u64)task) {
		fl_name_self(&key, task, target);
	} else {
		if ((u32)fl_own_tgid(task) == fl_filter_config.own_pid)
			return false;
		fl_own_comm(key.words + 1, fl_own(task, group_leader));
		fl_argument_comm(key.words + 3, fl_argument(target, group_leader));
	}
	return fl_count_near_pair(&key, near);
}

/* Any other one. A function of its own, so that what is above doesn't pay for its stack. */
static __noinline int fl_on_generated(unsigned long long *context)
{
	u64 arguments[5]; /* number, info, target, group, result */

	if (fl_take_arguments(arguments, 5, context))
		return 0;
	return fl_on_signal(context, arguments[0], (void *)arguments[1], (void *)arguments[2], arguments[3],
			    arguments[4]);
}

SEC("raw_tp/signal_generate")
int BPF_PROG(fl_generate, int number, struct kernel_siginfo *info, struct task_struct *target, int group, int result)
{
	if (!(fl_config.signals & FL_BIT(number)) ||
	    (fl_config.only_pairs && fl_count_sent(number, info, target, result)))
		return 0;
	return fl_on_generated(ctx);
}

/* __send_signal() of v5.10, later __send_signal_locked(): its result is not known yet. */
SEC("kprobe")
int BPF_KPROBE(fl_send, int number, struct kernel_siginfo *info, struct task_struct *target, int type)
{
	if (!(fl_config.signals & FL_BIT(number)))
		return 0;
	return fl_on_signal(ctx, number, info, target, type != FL_PIDTYPE_PID, FL_RESULT_UNKNOWN);
}

/* If neither can be used: the system calls that send. Their arguments are all that is known of the target. */
SEC("raw_tp/sys_enter")
int BPF_PROG(fl_call, struct pt_regs *regs, long number)
{
	struct task_struct *task = fl_current();
	struct fl_signal signal = {};
	u64 target, sent;

	if (number == FL_NR_KILL || number == FL_NR_TKILL || number == FL_NR_RT_SIGQUEUEINFO) {
		target = fl_register(fl_regs_0(regs));
		sent = fl_register(fl_regs_1(regs));
	} else if (number == FL_NR_TGKILL || number == FL_NR_RT_TGSIGQUEUEINFO) {
		target = fl_register(fl_regs_0(regs));
		sent = fl_register(fl_regs_2(regs));
	} else {
		return 0;
	}
	if (!sent || sent > 64 || !(fl_config.signals & FL_BIT(sent)) || fl_is_our_namer(task))
		return 0;
	if (!fl_filter() || (fl_config.from_count && !fl_is_wanted_sender())) {
		fl_count(FL_FILTERED);
		return 0;
	}
	if (fl_config.pairs)
		fl_count_pair(sent, FL_RESULT_UNKNOWN, task, NULL);
	else
		fl_count(FL_SIGNALS);
	if (!fl_config.records)
		return 0;
	signal.kind = FL_SAMPLE_SIGNAL;
	signal.signal = sent;
	signal.result = FL_RESULT_UNKNOWN;
	signal.flags = FL_SIGNAL_HAS_SENDER | FL_SIGNAL_TYPED_ONLY;
	if (number == FL_NR_KILL || number == FL_NR_RT_SIGQUEUEINFO)
		signal.flags |= FL_SIGNAL_TO_PROCESS;
	fl_describe_party(&signal.sender, task);
	signal.sender.uid = (u32)bpf_get_current_uid_gid();
	signal.target.pid = target;
	signal.timestamp_ns = bpf_ktime_get_boot_ns();
	signal.cpu = bpf_get_smp_processor_id();
	if (bpf_ringbuf_output(&fl_ring, &signal, sizeof(signal), fl_wake_flags(signal.timestamp_ns)))
		fl_count(FL_LOST_RING_FULL);
	else
		fl_count(FL_RECORDS);
	return 0;
}

/* --- a lack of memory --- */

/* mark_victim(int pid) before v6.8, then mark_victim(struct task_struct *task, uid_t uid): right after the kernel has killed it. */
SEC("raw_tp/mark_victim")
int BPF_PROG(fl_mark_victim, u64 first)
{
	struct fl_oom oom = {};
	struct task_struct *task = (void *)first;

	oom.kind = FL_SAMPLE_OOM;
	oom.timestamp_ns = bpf_ktime_get_boot_ns();
	/* A pid is never a kernel address. It is that of a thread, as in the kernel's own message. */
	oom.pid = first >> 63 ? fl_read(task, pid) : (u32)first;
	bpf_ringbuf_output(&fl_ring, &oom, sizeof(oom), fl_wake_flags(oom.timestamp_ns));
	return 0;
}

/* --- tasks that begin and end --- */

static __always_inline void fl_describe_task(struct fl_process *process, struct task_struct *task)
{
	struct fl_party party = {};
	struct task_struct *leader = fl_read(task, group_leader);

	fl_describe_party(&party, task);
	process->timestamp_ns = bpf_ktime_get_boot_ns();
	process->pid = party.tid;
	process->tgid = party.pid;
	process->ppid = fl_read(leader, real_parent, tgid);
	process->pid_in_namespace = party.pid_in_namespace;
	process->uid = (u32)bpf_get_current_uid_gid();
	__builtin_memcpy(process->comm, party.comm, FL_COMM_BYTES);
}

static __always_inline void fl_send_process(void *sample, u64 bytes, u64 now)
{
	if (!fl_config.records)
		return;
	if (bpf_ringbuf_output(&fl_ring, sample, bytes, fl_wake_flags(now)))
		fl_count(FL_LOST_EVENT_FULL);
	else
		fl_count(FL_RECORDS);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(fl_fork, struct task_struct *parent, struct task_struct *child)
{
	struct fl_process process = {};

	if (fl_filter_config.by_descent)
		fl_follow_fork(parent, child);
	if (!fl_config.processes || (!fl_filter_task(child) && !fl_filter_task(parent)))
		return 0;
	process.kind = FL_SAMPLE_FORK;
	fl_describe_task(&process, child);
	if (process.pid != process.tgid)
		process.flags |= FL_PROCESS_IS_THREAD;
	fl_count(process.flags ? FL_THREADS : FL_FORKS);
	fl_send_process(&process, sizeof(process), process.timestamp_ns);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(fl_exec, struct task_struct *task)
{
	struct fl_exec *record;
	struct file *file;
	u64 length;

	if (!fl_filter_task(task))
		return 0;
	fl_count(FL_EXECS);
	record = fl_scratch(&fl_records);
	if (!fl_config.records || !record)
		return 0;
	__builtin_memset(record, 0, __builtin_offsetof(struct fl_exec, strings));
	record->process.kind = FL_SAMPLE_EXEC;
	fl_describe_task(&record->process, task);
	file = fl_read(task, mm, exe_file);
	if (!file || fl_add_path((u64)file))
		record->process.flags |= FL_PROCESS_PATH_CUT;
	record->path_length = record->strings_length;
	if (fl_add_cgroup((u64)task)) /* cut: unknown rather than half */
		record->cgroup_offset = record->cgroup_length = ~0U;
	length = __builtin_offsetof(struct fl_exec, strings) + record->strings_length;
	barrier_var(length); /* or the check is done on another copy, and old verifiers don't see that both are equal */
	if (length > sizeof(*record))
		return 0;
	fl_send_process(record, length, record->process.timestamp_ns);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(fl_exit, struct task_struct *task)
{
	struct fl_process process = {};
	struct task_struct *leader = fl_read(task, group_leader);
	bool is_last = fl_read(task, signal, live.counter) == 0;

	if (fl_config.processes && fl_filter_task(task)) {
		process.kind = FL_SAMPLE_EXIT;
		fl_describe_task(&process, task);
		process.status = fl_read(task, exit_code);
		if (is_last) {
			/* As wait_task_zombie(), kernel/exit.c: the process has ended, whichever thread was the last. */
			process.pid = process.tgid;
			if (fl_read(task, signal, flags) & SIGNAL_GROUP_EXIT)
				process.status = fl_read(task, signal, group_exit_code);
			else
				process.status = fl_read(leader, exit_code);
		} else {
			process.flags |= FL_PROCESS_IS_THREAD;
		}
		fl_count(is_last ? FL_EXITS : FL_THREAD_EXITS);
		fl_send_process(&process, sizeof(process), process.timestamp_ns);
	}
	if (fl_filter_config.by_descent)
		fl_follow_exit(task);
	return 0;
}
