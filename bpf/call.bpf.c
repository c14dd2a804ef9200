// SPDX-License-Identifier: GPL-2.0-only
/*
 * `faultline call`: a flight recorder of kernel functions: the last calls of each task, kept in the kernel until something asks.
 *
 * Driven by the functions that were asked for: by fentry and fexit, kprobe.multi, kprobes, or the tracepoints of system calls, with one
 * body for the beginning of a call and one for its end. The programs of the first section are patterns: for each function the loader
 * makes one program of each, with the function's FL_WHICH (src/probe/pattern.rs).
 * Refuses to record calls of a task that a signal has ended: they would overwrite the calls that led there.
 */
#include "abi/call.h"
#include "call_fetch.bpf.h"
#include "call_stack.bpf.h"
#include "call_task.bpf.h"
#include "follow.bpf.h"
#include "ring.bpf.h"
#include "signal.h"

char LICENSE[] SEC("license") = "GPL";

/* Calls of --live in this second, on this CPU. Benign race: one program may preempt another, and one more call is sent. */
struct fl_budget {
	u64 second;
	u64 used;
};
FL_SCRATCH(fl_budgets, struct fl_budget);

/* Never read: Rust gets only types of maps and variables. */
const volatile struct fl_samples {
	struct fl_task task;
	struct fl_call call;
	struct fl_event event;
	enum fl_fetch_kind fetch_kind;
	enum fl_fetch_flag fetch_flag;
	enum fl_function_flag function_flag;
	enum fl_test test;
	enum fl_context context;
} fl_samples = {};

/* include/linux/preempt.h: the counts of the contexts that a CPU is in */
#define FL_SOFTIRQ  0x00000100 /* SOFTIRQ_OFFSET: serves a softirq, and doesn't only disable them */
#define FL_HARDIRQS 0x000f0000 /* HARDIRQ_MASK */
#define FL_NMIS     0x00f00000 /* NMI_MASK */

/* Which function: its place in fl_functions, its parameters and the low flags of enum fl_function_flag. */
#define FL_PLACE(which)         ((u32)(which)&0xffff)
#define FL_IS_TRACEPOINT(place) ((place)&1)
#define FL_PARAMETERS(which)    ((u32)(which) >> 16 & 0xff)
#define FL_FLAGS(which)         ((u32)(which) >> 24)

/* The verifier takes the number that the loader puts here for a constant, and removes what depends on it. */
#define FL_WHICH                                                                                \
	({                                                                                      \
		u64 which;                                                                      \
		asm volatile("%0 = %1 ll" : "=r"(which) : "i"(FL_MARK_WHICH * 0x100000001ULL)); \
		which;                                                                          \
	})

/* --- triggers, and --live --- */

static __always_inline void fl_describe(struct fl_event *event, enum fl_sample_kind kind, u64 now)
{
	u64 ids = bpf_get_current_pid_tgid();

	event->kind = kind;
	event->timestamp_ns = now;
	event->tid = (u32)ids;
	event->pid = ids >> 32;
}

/* The kernel's per-CPU variable that has it; the loader puts its number among the kernel's types here, or 0. */
#define FL_PREEMPT_COUNT                                                                                   \
	({                                                                                                 \
		void *variable;                                                                            \
		asm volatile("%0 = %1 ll" : "=r"(variable) : "i"(FL_MARK_PREEMPT_COUNT * 0x100000001ULL)); \
		variable;                                                                                  \
	})

/* What this CPU does: but for FL_CONTEXT_TASK it may be no deed of the current task. */
static __always_inline enum fl_context fl_context(void)
{
	void *variable = FL_PREEMPT_COUNT;
	u32 offset, count;
	void *place;

	if (!variable)
		return FL_CONTEXT_UNKNOWN;
	offset = fl_preempt_count_offset();
	place = bpf_this_cpu_ptr(variable);
	count = *(volatile u32 *)((char *)place + offset);
	if (count & FL_NMIS)
		return FL_CONTEXT_NMI;
	if (count & FL_HARDIRQS)
		return FL_CONTEXT_HARDIRQ;
	return count & FL_SOFTIRQ ? FL_CONTEXT_SOFTIRQ : FL_CONTEXT_TASK;
}

/* Is the event about the current task, or did the task only happen to run? */
static __always_inline bool fl_is_certain(struct task_struct *current, bool by_task)
{
	return (u32)bpf_get_current_pid_tgid() && !(fl_read(current, flags) & PF_KTHREAD) && by_task;
}

/*
 * Sends a trigger, with the calls of the current task, if it has some. They are sent from the task's entry, behind the event. So an
 * interrupt that comes meanwhile has no place for an event of its own there, and sends that without the calls.
 */
static __always_inline void fl_fire(struct task_struct *current, struct fl_task *task, struct fl_event *event,
				    bool by_task)
{
	u64 flags = fl_wake_flags(event->timestamp_ns);
	u64 next, bytes;
	long lost;

	fl_count(FL_TRIGGERS);
	event->is_certain = fl_is_certain(current, by_task);
	if (task && !task->is_sent) {
		task->is_sent = true;
		barrier();
		next = task->next;
		event->calls = next < fl_config.calls ? (u32)next : fl_config.calls;
		__builtin_memcpy(event->comm, task->comm, FL_COMM_BYTES);
		task->event = *event;
		bytes = sizeof(struct fl_task) + (u64)fl_config.calls * sizeof(struct fl_call);
		lost = bpf_ringbuf_output(&fl_ring, task, bytes, flags);
		task->is_sent = false;
	} else {
		struct task_struct *leader = fl_read(current, group_leader);

		fl_copy(event->comm, FL_COMM_BYTES, &leader->comm);
		lost = bpf_ringbuf_output(&fl_ring, event, sizeof(*event), flags);
	}
	if (lost)
		fl_count(FL_LOST_RING_FULL);
}

/* One call as it has ended. */
struct fl_live {
	struct fl_event event;
	struct fl_call call;
};

static __always_inline void fl_hand_on(const struct fl_task *task, const struct fl_call *call, u64 now)
{
	struct fl_budget *budget = fl_scratch(&fl_budgets);
	u64 second = now / 1000000000;
	struct fl_live *live;

	if (!budget)
		return;
	if (budget->second != second) {
		budget->second = second;
		budget->used = 0;
	}
	if (budget->used >= fl_config.live) {
		fl_count(FL_LOST_LIVE_BUDGET);
		return;
	}
	budget->used++;
	live = bpf_ringbuf_reserve(&fl_ring, sizeof(*live), 0);
	if (!live) {
		fl_count(FL_LOST_LIVE_FULL);
		return;
	}
	__builtin_memset(&live->event, 0, sizeof(live->event));
	fl_describe(&live->event, FL_SAMPLE_LIVE, now);
	live->event.calls = 1;
	__builtin_memcpy(live->event.comm, task->comm, FL_COMM_BYTES);
	__builtin_memcpy(&live->call, call, sizeof(*call));
	bpf_ringbuf_submit(live, fl_wake_flags(now));
	fl_count(FL_LIVE);
}

/* --- a call begins --- */

/* The arguments of a call, before it is known whether it is recorded. */
struct fl_arguments {
	u64 at[FL_ARGUMENTS];
};

/* Is this call recorded for all tasks, whatever the filter? */
static __always_inline bool fl_is_for_anyone(const struct fl_function *function, const struct fl_arguments *arguments)
{
	u64 argument = 0;

	if (!(function->flags & FL_FUNCTION_ANYONE))
		return false;
	if (!function->anyone_mask)
		return true;
	/* Each place by itself: old verifiers let no program index its stack. */
	_Pragma("unroll") for (u32 i = 0; i < FL_ARGUMENTS; i++) if (i == function->anyone_argument) argument =
		arguments->at[i];
	return argument & function->anyone_mask;
}

/* Has a signal ended the task, or does it exit? */
static __always_inline bool fl_is_ending(struct task_struct *current)
{
	return fl_read(current, flags) & (PF_SIGNALED | PF_EXITING);
}

/* Records that the function at this place begins. `any`: the verifier doesn't know the place. */
static __always_inline void fl_begin(void *context, u32 place, const struct fl_function *function,
				     const struct fl_arguments *arguments, bool any)
{
	struct task_struct *current = (void *)bpf_get_current_task();
	bool is_syscall = FL_IS_TRACEPOINT(place) || function->flags & FL_FUNCTION_SYSCALL;
	bool is_event = function->flags & FL_FUNCTION_EVENT;
	struct fl_task *task;
	struct fl_call *call;
	u64 sequence;

	if (fl_is_ending(current))
		return;
	task = fl_take_task(current, fl_is_for_anyone(function, arguments));
	if (!task)
		return;
	sequence = task->next;
	task->next = sequence + 1;
	call = fl_call_at(task, sequence);
	call->sequence = sequence;
	call->state = is_event ? FL_CALL_ENDED : FL_CALL_OPEN;
	call->function = place / 2;
	call->unread = 0;
	call->result = 0;
	call->duration_ns = 0;
	call->stack = -1;
	__builtin_memcpy(call->arguments, arguments->at, sizeof(call->arguments));
	if (is_syscall)
		fl_settle(task, sequence);
	call->behind = fl_behind_open(task, sequence);
	call->context = fl_context();
	if (!is_event)
		fl_push_open(task, sequence, place / 2);
	/* At a tracepoint the stack is the same for all calls; 5.10 has none there. */
	if (fl_config.kernel_stacks && !FL_IS_TRACEPOINT(place))
		call->stack = fl_take_stack(context);
	call->entered_ns = bpf_ktime_get_boot_ns();
	fl_fetch_all(call, function, place, false, any);
	fl_count(FL_CALLS);
	if (is_event) {
		fl_count(FL_RETURNS);
		if (fl_config.live && task->watched)
			fl_hand_on(task, call, call->entered_ns);
	}
	if (function->flags & FL_FUNCTION_BEGIN && task->watched && fl_is_met(call, function)) {
		struct fl_event event = {};

		fl_describe(&event, FL_SAMPLE_TRIGGER, call->entered_ns);
		event.trigger = FL_TRIGGER_BEGIN;
		event.function = place / 2;
		fl_fire(current, task, &event, is_syscall || call->context == FL_CONTEXT_TASK);
	}
}

/* --- a call ends --- */

static __always_inline void fl_end(u64 which, s64 result, bool any)
{
	u32 number = FL_PLACE(which) / 2;
	const struct fl_function *function = fl_function_at(FL_PLACE(which));
	struct task_struct *current;
	struct fl_task *task;
	u64 sequence, now;

	if (!function)
		return;
	if (function->flags & FL_FUNCTION_RESULT_INT)
		result = (s32)result;
	current = (void *)bpf_get_current_task();
	task = fl_find_task(current);
	if (!task && !(function->flags & FL_FUNCTION_TRIGGER))
		return;
	now = bpf_ktime_get_boot_ns();
	if (task && !fl_pop_open(task, number, &sequence)) {
		/* Nobody saw it begin, and not because it is none of those that are recorded. */
		if (task->watched && !(function->flags & FL_FUNCTION_QUIET) && !fl_is_ending(current))
			task->doubted = task->next;
	} else if (task) {
		struct fl_call *call = fl_call_at(task, sequence);

		fl_count(FL_RETURNS);
		/* Later calls may have taken its place meanwhile. */
		if (call->sequence == sequence) {
			call->duration_ns = now - call->entered_ns;
			call->result = result;
			if (function->flags & FL_FUNCTION_AT_END)
				fl_fetch_all(call, function, FL_PLACE(which), true, any);
			call->state = FL_CALL_ENDED;
			if (fl_config.live && task->watched)
				fl_hand_on(task, call, now);
		}
	}
	if (function->flags & FL_FUNCTION_TRIGGER && result == function->trigger) {
		bool is_syscall = FL_IS_TRACEPOINT(FL_PLACE(which)) || function->flags & FL_FUNCTION_SYSCALL;
		struct fl_event event = {};

		if (!(task && task->watched) && !fl_filter())
			return;
		fl_describe(&event, FL_SAMPLE_TRIGGER, now);
		event.trigger = FL_TRIGGER_RESULT;
		event.function = number;
		event.result = result;
		/* A system call is always one of the current task. */
		fl_fire(current, task, &event, is_syscall || fl_context() == FL_CONTEXT_TASK);
	}
}

/* --- patterns: never loaded as they are --- */

/* A wrapper of a system call has its arguments in the struct pt_regs that it is given. */
static __always_inline void fl_ask_syscall(struct fl_arguments *arguments, u64 regs)
{
	struct fl_call_regs from = {};

	fl_copy(&from, sizeof(from), fl_call_regs_of(regs));
	fl_call_arguments(arguments->at, &from);
}

/*
 * fentry: the context holds the arguments, and behind them the result. They are read as plain memory. Else the verifier would allow only
 * members to be read through a pointer to a struct; and so one program serves all functions, whatever the number of their arguments.
 * Beyond the last argument lies whatever is on the kernel's stack; nothing uses it. A tracepoint by its types has the same context.
 */
SEC("raw_tp")
int fl_fentry(u64 *context)
{
	u64 which = FL_WHICH;
	const struct fl_function *function = fl_function_at(FL_PLACE(which));
	struct fl_arguments arguments = {};

	if (!function)
		return 0;
	fl_copy(&arguments, sizeof(arguments), context);
	if (FL_FLAGS(which) & FL_FUNCTION_SYSCALL)
		fl_ask_syscall(&arguments, arguments.at[0]);
	if (FL_FLAGS(which) & FL_FUNCTION_CONTEXT) {
		const void *handed_on = (const void *)arguments.at[0];

		fl_copy(&arguments, sizeof(arguments), handed_on);
	}
	fl_begin(context, FL_PLACE(which), function, &arguments, false);
	return 0;
}

/*
 * The result lies behind the arguments. For a BPF program whose type the verifier could not make out, the kernel takes five; the helper
 * knows how many it took (v5.17), and for kernels without it the loader guesses as they do.
 */
static __always_inline u64 fl_result_behind(u64 *context, u32 parameters)
{
	u64 result = 0;

	if (bpf_core_enum_value_exists(enum bpf_func_id___fl, BPF_FUNC_get_func_ret___fl))
		bpf_get_func_ret(context, &result);
	else
		fl_copy(&result, sizeof(result), (char *)context + parameters * sizeof(u64));
	return result;
}

SEC("raw_tp")
int fl_fexit(u64 *context)
{
	u64 which = FL_WHICH;
	u64 result = 0;

	if (FL_FLAGS(which) & FL_FUNCTION_HAS_RESULT)
		result = fl_result_behind(context, FL_PARAMETERS(which));
	fl_end(which, result, false);
	return 0;
}

static __always_inline int fl_on_kprobe(struct pt_regs *regs, u64 which, bool any)
{
	const struct fl_function *function = fl_function_at(FL_PLACE(which));
	struct fl_arguments arguments = {fl_function_arguments(regs)};

	if (!function)
		return 0;
	if (FL_FLAGS(which) & FL_FUNCTION_SYSCALL)
		fl_ask_syscall(&arguments, arguments.at[0]);
	fl_begin(regs, FL_PLACE(which), function, &arguments, any);
	return 0;
}

SEC("kprobe")
int fl_kprobe(struct pt_regs *regs)
{
	return fl_on_kprobe(regs, FL_WHICH, false);
}

SEC("kprobe")
int fl_kretprobe(struct pt_regs *regs)
{
	fl_end(FL_WHICH, fl_regs_result(regs), false);
	return 0;
}

/* kprobe.multi: one program for all functions; the cookie says which. */
SEC("kprobe")
int fl_multi(struct pt_regs *regs)
{
	return fl_on_kprobe(regs, bpf_get_attach_cookie(regs), true);
}

SEC("kprobe")
int fl_multi_return(struct pt_regs *regs)
{
	fl_end(bpf_get_attach_cookie(regs), fl_regs_result(regs), true);
	return 0;
}

/* tracepoint/syscalls/sys_enter_NAME: a program that reads behind the arguments can't be attached. */
SEC("tracepoint")
int fl_enter(struct fl_syscall_event *event)
{
	u64 which = FL_WHICH;
	u32 parameters = FL_PARAMETERS(which);
	const struct fl_function *function = fl_function_at(FL_PLACE(which));
	struct fl_arguments arguments = {};

	if (!function)
		return 0;
	_Pragma("unroll") for (u32 i = 0; i < FL_ARGUMENTS; i++) if (i < parameters) arguments.at[i] = event->words[i];
	fl_begin(event, FL_PLACE(which), function, &arguments, false);
	return 0;
}

SEC("tracepoint")
int fl_leave(struct fl_syscall_event *event)
{
	fl_end(FL_WHICH, event->words[0], false);
	return 0;
}

/* --- what is not about one function --- */

/* signal_deliver(int signal, struct kernel_siginfo *info, struct k_sigaction *action): in the task that gets it. */
SEC("raw_tp/signal_deliver")
int BPF_PROG(fl_signal, u64 number)
{
	struct task_struct *current;
	struct fl_event event = {};
	struct fl_task *task;

	if (!(fl_config.trigger_signals & FL_BIT((u32)number)))
		return 0;
	current = (void *)bpf_get_current_task();
	task = fl_find_task(current);
	if (!(task && task->watched) && !fl_filter())
		return 0;
	fl_describe(&event, FL_SAMPLE_TRIGGER, bpf_ktime_get_boot_ns());
	event.trigger = FL_TRIGGER_SIGNAL;
	event.signal = (u32)number;
	fl_fire(current, task, &event, true);
	return 0;
}

/* task_rename(struct task_struct *task, const char *comm): exec, prctl(2), /proc/PID/comm. The name of a process is its leader's. */
SEC("raw_tp/task_rename")
int BPF_PROG(fl_rename, struct task_struct *task, const char *comm)
{
	u32 tid = fl_read(task, pid);
	struct fl_task *entry = bpf_map_lookup_elem(&fl_tasks, &tid);

	if (entry && entry->pid == tid)
		fl_copy(entry->comm, FL_COMM_BYTES, comm);
	return 0;
}
