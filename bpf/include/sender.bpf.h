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
#include "record.bpf.h"
#include "signal.h"

struct fl_sent {
	u64 start_boottime_ns; /* of the target's leader: two processes with the same tgid differ by it */
	u32 signal;
	s32 si_code;
	u32 pid;
	u32 tid;
	u32 uid;
	u32 by_kernel; /* memory is the size of the target; there is no sender */
	u32 by_us;     /* to a child of ours: it is not watched */
	u32 pad;
	char comm[FL_COMM_BYTES];
	struct fl_memory memory;
};

/* By the target's tgid. Full: the oldest is forgotten, whose record then has no sender. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FL_ENDINGS_MAX);
	__type(key, u32);
	__type(value, struct fl_sent);
} fl_sent SEC(".maps");

/*
 * signal_generate, in the sender. Only signals that a process sends: if the kernel sends one, the current task only happens to run. A
 * kill by the kernel is noted with the size of its target, which shrinks from then on.
 */
static __always_inline void fl_note_sender(u32 signal, struct kernel_siginfo *info, struct task_struct *target)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fl_sent sent = {};
	u32 tgid;

	if (!(fl_config.signals & ~FL_DEFAULT_CORE & FL_BIT(signal)))
		return;
	sent.signal = signal;
	sent.start_boottime_ns = fl_read(target, group_leader, start_boottime);
	tgid = fl_read(target, tgid);
	/* SEND_SIG_NOINFO, 0, is sent by a process; SEND_SIG_PRIV, 1, by the kernel. */
	if ((u64)info == 1) {
		sent.by_kernel = 1;
		if (signal == FL_SIGKILL && fl_measure_memory(&sent.memory, target))
			bpf_map_update_elem(&fl_sent, &tgid, &sent, BPF_ANY);
		return;
	}
	sent.si_code = info ? fl_read(info, si_code) : SI_USER;
	if (sent.si_code != SI_USER && sent.si_code != SI_TKILL && sent.si_code != SI_QUEUE)
		return;
	sent.pid = bpf_get_current_pid_tgid() >> 32;
	sent.tid = (u32)bpf_get_current_pid_tgid();
	sent.by_us = fl_is_our_own(target);
	sent.uid = (u32)bpf_get_current_uid_gid();
	fl_copy(sent.comm, FL_COMM_BYTES, &task->comm);
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

/* Adds the sender of `signal` to the record of the current process, if it was noted. */
static __always_inline void fl_add_sender(struct fl_crash *record, struct task_struct *task, u32 signal)
{
	struct fl_sent *sent = fl_sent_to(task, signal);

	if (!sent)
		return;
	if (sent->by_kernel) {
		record->si_code = SI_KERNEL;
		record->flags |= FL_HAS_CODE;
		if (fl_read(task, signal, oom_mm)) {
			record->memory = sent->memory;
			record->flags |= FL_IS_OOM;
		}
		return;
	}
	record->si_code = sent->si_code;
	record->sender_pid = sent->pid;
	record->sender_tid = sent->tid;
	record->sender_uid = sent->uid;
	__builtin_memcpy(record->sender_comm, sent->comm, FL_COMM_BYTES);
	record->flags |= FL_HAS_CODE | FL_HAS_SENDER | FL_SENDER_SEEN;
}

#endif
