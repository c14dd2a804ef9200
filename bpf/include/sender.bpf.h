/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sender of a signal that ends a process without a core dump (SIGKILL, SIGTERM and their like), or the note that memory was short.
 *
 * The kernel turns these into an anonymous SIGKILL before they are delivered (fl_ending_signal), so that the sender is noted when
 * the signal is generated, in the sender's own context. Attached only if such a signal is watched.
 */
#ifndef FL_SENDER_BPF_H
#define FL_SENDER_BPF_H

#include "filter.bpf.h"
#include "oom.bpf.h"
#include "reason.bpf.h"
#include "record.bpf.h"
#include "regs.bpf.h"
#include "signal.h"
#include "trap.bpf.h"

struct fl_sent {
	u64 start_boottime_ns; /* of the target's leader: two processes with the same tgid differ by it */
	u32 signal;
	s32 si_code;
	u32 pid;
	u32 tid;
	u32 uid;
	u32 by_kernel;  /* there is no sender */
	u32 by_us;      /* to a child of ours: it is not watched */
	u32 has_memory; /* memory is the size of the target */
	char comm[FL_COMM_BYTES];
	struct fl_memory memory;
	struct fl_reason reason;
};

/* By the target's tgid. Full: the oldest is forgotten, whose record then has no sender. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FL_ENDINGS_MAX);
	__type(key, u32);
	__type(value, struct fl_sent);
} fl_sent SEC(".maps");

/* TRACE_SIGNAL_*, include/trace/events/signal.h: of the results up to this one only 0 delivers the signal. */
#define FL_TRACE_OVERFLOW_FAIL 3

/* signal_generate, in the sender. A kill by the kernel is noted with the size of its target, which shrinks from then on. */
static __always_inline void fl_note_sender(void *context, u32 signal, struct kernel_siginfo *info,
					   struct task_struct *target, u32 result)
{
	struct task_struct *task = fl_current();
	struct fl_sent sent = {};
	u32 tgid;

	if (!(fl_config.signals & ~FL_DEFAULT_CORE & FL_BIT(signal)))
		return;
	/* What is ignored, or pending already, ends nothing: what was noted before goes on to be true. */
	if (result && result <= FL_TRACE_OVERFLOW_FAIL)
		return;
	sent.signal = signal;
	sent.start_boottime_ns = fl_read(target, group_leader, start_boottime);
	sent.si_code = fl_code_of(info);
	tgid = fl_read(target, tgid);
	fl_find_reason(&sent.reason, task, info, target, signal, sent.si_code);
	if (fl_is_sender(task, info, target, signal, sent.si_code)) {
		sent.pid = bpf_get_current_pid_tgid() >> 32;
		sent.tid = (u32)bpf_get_current_pid_tgid();
		sent.by_us = fl_is_our_own(target);
		sent.uid = (u32)bpf_get_current_uid_gid();
		fl_copy(sent.comm, FL_COMM_BYTES, &task->comm);
	} else {
		sent.by_kernel = 1;
		if (signal == FL_SIGKILL && (u64)info == FL_PRIV_INFO) {
			sent.has_memory = fl_measure_memory(&sent.memory, target);
			if (sent.reason.kind == FL_REASON_NONE)
				fl_reason_memory(context, &sent.reason, target);
		}
	}
	bpf_map_update_elem(&fl_sent, &tgid, &sent, BPF_ANY);
}

/* What was noted of the signal that ends the current process. NULL: nothing. */
static __always_inline struct fl_sent *fl_sent_to(struct task_struct *task, u32 signal)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct fl_sent *sent = bpf_map_lookup_elem(&fl_sent, &tgid);

	if (!sent || sent->signal != signal || sent->start_boottime_ns != fl_read(task, group_leader, start_boottime))
		return NULL;
	return sent;
}

/* Is the current process a child of ours that we end by `signal`? */
static __always_inline bool fl_is_ended_by_us(struct task_struct *task, u32 signal)
{
	struct fl_sent *sent = fl_filter_config.own_pid ? fl_sent_to(task, signal) : NULL;

	return sent && sent->by_us;
}

/* Adds the sender of `signal` to the record of the current process, or why the kernel has sent it, if that was noted. */
static __always_inline void fl_add_sender(struct fl_crash *record, struct task_struct *task, u32 signal)
{
	struct fl_sent *sent = fl_sent_to(task, signal);

	if (!sent)
		return;
	/* A siginfo names its sender itself, but takes the process for it where the kernel has sent the signal. */
	if (record->flags & FL_HAS_CODE && (!sent->by_kernel || record->si_code != sent->si_code))
		return;
	record->si_code = sent->si_code;
	record->reason = sent->reason;
	record->flags |= FL_HAS_CODE;
	if (sent->by_kernel) {
		record->flags &= ~FL_HAS_SENDER;
		if (sent->has_memory && fl_read(task, signal, oom_mm)) {
			record->memory = sent->memory;
			record->flags |= FL_IS_OOM;
		}
		return;
	}
	record->sender_pid = sent->pid;
	record->sender_tid = sent->tid;
	record->sender_uid = sent->uid;
	__builtin_memcpy(record->sender_comm, sent->comm, FL_COMM_BYTES);
	record->flags |= FL_HAS_SENDER | FL_SENDER_SEEN;
}

/*
 * The limit of file size: siginfo says SI_USER and names the process, as for kill(2). The kernel sends it to the thread whose call then fails
 * with EFBIG. Where neither that nor a call that sends shows what it was, as if the signal was blocked meanwhile, nobody is named.
 */
static __always_inline void fl_judge_file_size(struct fl_crash *record, struct task_struct *task, u32 entry)
{
	struct fl_reason reason = {};
	s32 call = record->syscall;

	fl_reason_file_size(&reason, task);
	if (reason.kind == FL_REASON_NONE || record->si_code != SI_USER ||
	    record->sender_pid != (s32)record->pid_in_namespace)
		return;
	if (entry == FL_BY_CALL && (call == FL_NR_KILL || call == FL_NR_PIDFD_SEND_SIGNAL))
		return;
	record->flags &= ~FL_HAS_SENDER;
	if (entry == FL_BY_CALL && fl_call_result(&record->registers) == -EFBIG)
		record->reason = reason;
}

/* What the kernel adds to a soft limit when it has sent the signal for it: check_process_timers() and check_thread_timers(). */
#define FL_CPU_TIME_STEP  1
#define FL_REAL_TIME_STEP 1000000

/* Why the kernel has sent a signal that is delivered with its siginfo, and that dumps core: nothing was noted of it when it was sent. */
static __always_inline void fl_judge_sender(struct fl_crash *record, struct task_struct *task, u32 entry)
{
	u64 cpu_time, real_time;

	if (record->signal == FL_SIGXFSZ && record->flags & FL_HAS_SENDER)
		fl_judge_file_size(record, task, entry);
	if (record->si_code != SI_KERNEL)
		return;
	/* No other part of the kernel sends this one. */
	if (record->signal == FL_SIGQUIT && fl_read(task, signal, tty) && !fl_may_forge(record, entry))
		fl_set_reason(&record->reason, FL_REASON_TERMINAL);
	if (record->signal != FL_SIGXCPU)
		return;
	cpu_time = fl_read(task, signal, rlim[RLIMIT_CPU].rlim_cur);
	real_time = fl_read(task, signal, rlim[RLIMIT_RTTIME].rlim_cur);
	if (cpu_time != RLIM_INFINITY && fl_reason_cpu_time(&record->reason, task, cpu_time - FL_CPU_TIME_STEP))
		return;
	if (fl_reason_deadline(&record->reason, task))
		return;
	if (real_time != RLIM_INFINITY)
		fl_reason_real_time(&record->reason, task, real_time - FL_REAL_TIME_STEP);
}

#endif
