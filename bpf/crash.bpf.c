// SPDX-License-Identifier: GPL-2.0-only
/*
 * `faultline crash`: every signal that ends a process, or could have, at the moment the kernel delivers it.
 *
 * Driven by raw_tp/signal_deliver, which runs in the thread that gets the signal, with interrupts off and siglock held:
 * nothing here sleeps or takes mmap_lock, nor calls a helper that might, except once for a new group. If it can't be used, driven by
 * kprobes; docs/limits.md lists what they can't see. If groups are on, every event is counted in its group before anything else is done
 * for it.
 * Refuses to guess: what is not certain has no flag set.
 */
#include "abi/crash.h"
#include "again.bpf.h"
#include "budget.bpf.h"
#include "caught.bpf.h"
#include "ending.bpf.h"
#include "filter.bpf.h"
#include "follow.bpf.h"
#include "own_signal.bpf.h"
#include "send.bpf.h"
#include "site.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* Names a new group in case that no sample of it can be sent: its stack, and the executable's build id. */
static __always_inline void fl_name_group(void *context, struct task_struct *task, struct fl_group *group)
{
	struct mm_struct *mm = fl_read(task, mm);

	group->stack_id = bpf_get_stackid(context, &fl_stacks, BPF_F_USER_STACK);
	if (group->stack_id < 0)
		fl_count(FL_LOST_STACK_FULL);
	if (mm && !fl_describe_exe((u64)mm))
		fl_copy_build_id(group);
}

/* What is left to be done after a record was begun. */
enum fl_begun {
	FL_BEGUN_NOTHING = 0,
	FL_BEGUN_EVENT = 1 << 0,   /* it is an event, which is to be counted */
	FL_BEGUN_DUE = 1 << 1,     /* the record is wanted */
	FL_BEGUN_AT_SITE = 1 << 2, /* its place is to be remembered with its group, or because its stack is sent */
};

/*
 * The record has been sent, as a sample of its group. It looks up again what its caller had: to keep that takes room on the stack, of which
 * the chains of calls have none to spare.
 */
static __always_inline void fl_note_sent(u32 id)
{
	struct fl_end *end = fl_scratch(&fl_ends);
	struct fl_group *group = fl_config.groups ? bpf_map_lookup_elem(&fl_groups, &id) : NULL;

	if (!end)
		return;
	end->is_sent = 1;
	if (group) {
		group->samples += 1; /* benign race: a sample more than the budget */
		group->sampled_ns = end->timestamp_ns;
	}
}

/* Counts the event of the record that has been begun, if groups are on, and sends the record if it `is_due`. Returns the group. */
static __always_inline u32 fl_count_and_send(void *context, struct task_struct *task, struct fl_crash *record,
					     bool is_due)
{
	struct fl_end *end = fl_scratch(&fl_ends);
	struct fl_unwind *unwind;
	struct fl_group *group;
	bool is_new, may_fill = true;
	u32 id;

	id = fl_config.groups ? fl_count_group((u64)fl_read(task, mm)) : 0;
	fl_count_matched(record->disposition);
	is_new = id & FL_GROUP_IS_NEW;
	id &= ~FL_GROUP_IS_NEW;
	group = fl_config.groups ? bpf_map_lookup_elem(&fl_groups, &id) : NULL;
	if (is_new && group)
		fl_name_group(context, task, group);
	if (fl_config.groups) {
		if (!group || !end || !fl_take_budget(group, record->timestamp_ns, is_due))
			return id;
		end->group = id;
		end->serial = group->serial;
		may_fill = fl_is_first_of_others(group);
	}
	unwind = fl_scratch(&fl_unwinds);
	if (unwind)
		unwind->may_fill = may_fill;
	if (fl_send_all(record, task))
		fl_note_sent(id);
	return id;
}

/* Completes what was begun. Each program has it once: it is the largest part of what the kernel verifies before we start. */
static __always_inline void fl_finish(void *context, struct task_struct *task, enum fl_begun begun)
{
	struct fl_site now, *site;
	struct fl_crash *record;
	struct fl_end *end;
	u32 departures, id;

	if (!begun)
		return;
	record = fl_scratch(&fl_records);
	end = fl_scratch(&fl_ends);
	departures = fl_departed();
	if (!record)
		return;
	id = fl_count_and_send(context, task, record, begun & FL_BEGUN_DUE);
	if (!(begun & FL_BEGUN_AT_SITE) || (fl_config.show_handled && !(end && end->is_sent)))
		return;
	site = fl_site_of(&now, task, fl_near_register(fl_regs_ip(fl_near_pt_regs(task))), record->si_code,
			  record->signal, record->disposition);
	if (!site)
		return;
	now.moment = fl_config.show_handled ? record->timestamp_ns : 0;
	now.group = id;
	now.departures = departures;
	*site = now;
}

/*
 * A watched signal is delivered to a task: if the task is watched and its record is needed, begins it. What needs none is counted here.
 * `is_watched`: the task is known to be watched.
 */
static __always_inline enum fl_begun fl_begin_signal(struct task_struct *task, struct kernel_siginfo *info, u32 signal,
						     u64 handler, bool is_watched)
{
	struct fl_signal_head head = {};
	struct fl_pointers pointers = {};
	enum fl_begun begun = FL_BEGUN_EVENT;
	enum fl_disposition disposition;
	struct fl_thread *thread = NULL;
	u32 recalled = 0;
	u64 owner = 0;
	bool is_own;
	s32 code, sent_as;

	if (!is_watched && !fl_filter()) {
		fl_count(FL_FILTERED);
		return FL_BEGUN_NOTHING;
	}
	if (info)
		fl_read_head(&head, info);
	code = head.code;
	disposition = fl_dispose(task, signal, handler);
	if (disposition == FL_DISPOSED_FATAL || fl_config.show_handled)
		begun |= FL_BEGUN_DUE;
	if (disposition == FL_DISPOSED_HANDLED)
		fl_read_pointers(&pointers, task, NULL);
	if (disposition == FL_DISPOSED_HANDLED && info)
		thread = fl_remember(task, &pointers, head.address, signal, code, &owner);
	if (!fl_config.groups && !(begun & FL_BEGUN_DUE)) {
		fl_count_matched(disposition);
		return FL_BEGUN_NOTHING;
	}
	if (disposition == FL_DISPOSED_HANDLED && !(begun & FL_BEGUN_DUE)) {
		struct fl_site now, *site;

		site = fl_site_of(&now, task, pointers.instruction_pointer, code, signal, disposition);
		if (fl_count_at_site(thread, owner, site, &now)) {
			fl_count_matched(FL_DISPOSED_HANDLED);
			return FL_BEGUN_NOTHING;
		}
		begun |= FL_BEGUN_AT_SITE;
	}
	is_own = disposition == FL_DISPOSED_FATAL && fl_is_own(task, info, code);
	sent_as = code;
	if (disposition == FL_DISPOSED_FATAL && !is_own && !(FL_DEFAULT_CORE & FL_BIT(signal))) {
		int own = fl_find_own_signal(signal);

		is_own = own != FL_SENT_BY_NONE;
		sent_as = fl_code_of_own(own);
	}
	if (disposition == FL_DISPOSED_FATAL)
		recalled = fl_recall(signal, sent_as, is_own);
	fl_note_end((u64)info, signal, sent_as, recalled);
	if (!recalled) {
		fl_begin_record((u64)info, signal, disposition);
		if (is_own)
			fl_add_earlier(~0U);
	}
	if (fl_config.show_handled && !fl_is_death(disposition) &&
	    !fl_is_stack_sent(task, fl_near_register(fl_regs_ip(fl_near_pt_regs(task)))))
		begun |= FL_BEGUN_AT_SITE;
	return begun;
}

/* Has the current thread called exit_group(2)? Otherwise another one has, and this one is ended with it, whatever it was doing. */
static __always_inline bool fl_calls_exit(struct task_struct *task)
{
	u64 number = fl_near_register(fl_regs_call(fl_near_pt_regs(task)));

	return number == FL_NR_EXIT_GROUP || number == FL_NR_EXIT_GROUP_32;
}

/*
 * The current thread ends with `status`: a death of its process, if the thread makes it exit from the handler of a fault, or sends it a signal
 * there that nobody watches. True: its record has been begun.
 */
static __always_inline bool fl_begin_exit(u32 status)
{
	struct task_struct *task = fl_current();
	u32 signal = status & 0x7f, recalled;
	s32 code = status >> 8 & 0xff;

	if ((FL_DEFAULT_CORE | fl_config.signals) & (signal ? FL_BIT(signal) : 0) ||
	    !fl_may_recall(fl_thread_of(task), task))
		return false;
	if (signal) {
		int own = fl_find_own_signal(signal);

		if (own == FL_SENT_BY_NONE)
			return false;
		code = fl_code_of_own(own);
	} else if (!fl_calls_exit(task)) {
		return false;
	}
	recalled = fl_recall(signal, code, true);
	fl_note_end(0, signal, code, recalled);
	return recalled;
}

/*
 * The current thread ends with `status`, and `others` of its process have not ended: seccomp has ended it alone
 * (SECCOMP_RET_KILL_THREAD), without a signal. No process can exit with such a status, as exit(2) shifts its argument; and where the whole
 * process ends, the kernel has noted that before.
 */
__noinline int fl_begin_thread_end(u64 status, int others)
{
	struct task_struct *task = fl_current();
	struct fl_crash *record = fl_scratch(&fl_records);

	if (!fl_config.sees_threads || status != FL_SIGSYS || others <= 0 ||
	    fl_read(task, signal, flags) & SIGNAL_GROUP_EXIT || !fl_read(task, seccomp.mode))
		return 0;
	if (!fl_filter()) {
		fl_count(FL_FILTERED);
		return 0;
	}
	fl_begin_record(0, FL_SIGSYS, FL_DISPOSED_THREAD);
	if (!record)
		return 0;
	record->si_code = FL_SYS_SECCOMP;
	record->flags |= FL_HAS_CODE | FL_HAS_SYSCALL | FL_PLACE_COUNTS;
	record->fault_address = fl_instruction_pointer(&record->registers);
	record->syscall_arch = fl_audit_arch(fl_is_compat_call(task));
	return 1;
}

/*
 * Two hooks, which the first argument tells apart, a signal's number or the address of a task:
 * signal_deliver(int signal, struct kernel_siginfo *info, struct k_sigaction *action), and where there are no kprobes, from
 * v6.16 on, sched_process_exit(struct task_struct *task, bool group_dead). One program for both, because what they have in
 * common takes the verifier most of the time that we take to start. Before v6.16 the task has given up its memory when it
 * comes there.
 */
static __always_inline enum fl_begun fl_begin_either(unsigned long long *ctx, struct task_struct *task, u64 first,
						     struct kernel_siginfo *info)
{
	u32 number = first;
	u64 handler = 0;

	if (fl_config.at_exit && first > 64) { /* no signal: a task */
		bool is_exit = fl_read(task, signal, flags) & SIGNAL_GROUP_EXIT;

		if (is_exit ? fl_begin_exit(fl_read(task, signal, group_exit_code))
			    : fl_begin_thread_end((u32)fl_read(task, exit_code), fl_read(task, signal, live.counter)))
			return FL_BEGUN_EVENT | FL_BEGUN_DUE;
		return FL_BEGUN_NOTHING;
	}
	/* SEND_SIG_NOINFO and SEND_SIG_PRIV are small numbers, not pointers. */
	if ((u64)info <= 1)
		info = NULL;
	if (number == FL_SIGKILL) {
		if (!(fl_config.signals & ~FL_DEFAULT_CORE))
			return FL_BEGUN_NOTHING;
		number = fl_ending_signal(task);
		if (!number || fl_is_ended_by_us(task, number))
			return FL_BEGUN_NOTHING;
	} else {
		handler = fl_handler_at(ctx, task, number);
		/* A signal that ends the process is seen again: as an anonymous SIGKILL of its other threads, at the coredump. */
		if (handler == FL_SIG_DFL && !fl_is_seen_once(number) &&
		    fl_dispose(task, number, handler) == FL_DISPOSED_FATAL && !fl_is_first(task))
			return FL_BEGUN_NOTHING;
	}
	return fl_begin_signal(task, info, number, handler, fl_is_seen_once(number));
}

/* May its first argument be of interest? Asked before all else, because most signals that a machine delivers are not. */
static __always_inline bool fl_is_awaited(u64 first)
{
	/* No signal has such a number. */
	return first > 64 || (fl_config.signals | FL_BIT(FL_SIGKILL)) & FL_BIT(first);
}

SEC("raw_tp/signal_deliver")
int BPF_PROG(fl_deliver_exit, u64 first, struct kernel_siginfo *info)
{
	struct task_struct *task;
	u64 arguments[2];

	if (!fl_is_awaited(first))
		return 0;
	task = fl_current();
	if (fl_count_delivered(ctx, task, first, info) || fl_take_arguments(arguments, 2, ctx))
		return 0;
	fl_finish(ctx, task, fl_begin_either(ctx, task, arguments[0], (struct kernel_siginfo *)arguments[1]));
	return 0;
}

/* --- the fallback, where signal_deliver can't be used: kprobes --- */

/* The kernel is about to write a core file, or would if it were allowed to: once for each fatal signal that may dump. */
static __always_inline enum fl_begun fl_begin_coredump(struct task_struct *task, struct kernel_siginfo *info)
{
	u32 signal = fl_read(info, si_signo);

	if (fl_config.at_coredump) {
		if (!(fl_config.at_coredump & FL_BIT(signal)) || !fl_is_first(task))
			return FL_BEGUN_NOTHING;
		if (fl_config.is_preempted)
			fl_count(FL_MADE_UP);
	}
	if (!(fl_config.signals & FL_BIT(signal)))
		return FL_BEGUN_NOTHING;
	return fl_begin_signal(task, info, signal, FL_SIG_DFL, false);
}

/* The current thread ends with `status`. */
static __always_inline enum fl_begun fl_begin_end(struct task_struct *task, u32 status)
{
	bool is_death =
		status != FL_SIGSYS
			? fl_begin_exit(status)
			: !fl_is_ending(task) && fl_begin_thread_end(status, fl_read(task, signal, live.counter) - 1);

	return is_death ? FL_BEGUN_EVENT | FL_BEGUN_DUE : FL_BEGUN_NOTHING;
}

/*
 * Two hooks, told apart by the first argument, which is a status or, above all of them, an address of the kernel's: do_exit(long status),
 * which each thread comes to once, and do_coredump(struct kernel_siginfo *info), which is vfs_coredump() from v6.18 on. One program for
 * both, as above.
 *
 * Beside signal_deliver it is for kernels where seccomp ends a process without delivering a signal (before v5.16): such a death
 * goes straight to the coredump. And for real-time kernels, which may skip the run at signal_deliver (from v7.0 on); they skip no run of
 * a kprobe. There this program has scratch memory of its own, because it runs while fl_deliver_exit is preempted: Hook::apart().
 */
SEC("kprobe")
int BPF_KPROBE(fl_dump_or_exit, u64 first)
{
	struct task_struct *task = fl_current();

	fl_finish(ctx, task,
		  first >> 63 ? fl_begin_coredump(task, (struct kernel_siginfo *)first) : fl_begin_end(task, first));
	return 0;
}

/*
 * The kernel forces a signal on the current task, as it does for faults. Only signals that a handler will take are of interest: the
 * others end the process, and are seen at the coredump. A blocked signal is reset to its default action (force_sig_info_to_task()).
 * Since v5.16 the third argument can ask for the same, as if there is no stack to call a handler. Before, the action was already reset
 * here (force_sigsegv()).
 */
SEC("kprobe/force_sig_info_to_task")
int BPF_KPROBE(fl_force_sig, struct kernel_siginfo *info, struct task_struct *target, u32 how)
{
	struct task_struct *task = fl_current();
	u32 signal = fl_read(info, si_signo);
	u64 handler, current = (u64)task;

	barrier_var(current); /* or clang goes on with the target, of which the verifier doesn't know the type */
	if ((u64)target != current || !(fl_config.signals & FL_BIT(signal)))
		return 0;
	if (bpf_core_enum_value_exists(enum sig_handler___fl, HANDLER_CURRENT___fl) &&
	    how != bpf_core_enum_value(enum sig_handler___fl, HANDLER_CURRENT___fl))
		return 0;
	handler = fl_handler(task, signal);
	if (handler == FL_SIG_DFL || handler == FL_SIG_IGN || fl_read(task, blocked.sig[0]) & FL_BIT(signal))
		return 0;
	fl_finish(ctx, task, fl_begin_signal(task, info, signal, handler, false));
	return 0;
}

SEC("raw_tp/signal_generate")
int BPF_PROG(fl_generate, int signal, struct kernel_siginfo *info, struct task_struct *target, int group, int result)
{
	fl_note_sender(ctx, signal, info, target, result);
	return 0;
}
