/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses from bpf/call.bpf.c to user space, and what user space asks it to read of each function.
 */
#ifndef FL_ABI_CALL_H
#define FL_ABI_CALL_H

#include "../abi.h"

#define FL_FUNCTIONS_MAX    512 /* that are watched at once */
#define FL_ARGUMENTS        6   /* of a function: those in registers */
#define FL_FETCHES_MAX      16  /* values of one call */
#define FL_AFTER_MAX        6   /* of them, that are read again at its end */
#define FL_DEREFERENCES_MAX 3   /* pointers followed for one value */
#define FL_TEXTS_MAX        2   /* strings of one call */
#define FL_TEXT_BYTES       128 /* of each, with its NUL */
#define FL_OPEN_MAX         8   /* calls of a task that have not returned: one in another */
#define FL_CALLS_MIN        4   /* --calls: a power of two */
#define FL_CALLS_MAX        64
#define FL_CALL_STACKS_MAX  2048 /* kernel stacks, in each of FL_CALL_STACK_MAPS tables */
#define FL_CALL_STACK_MAPS  3
#define FL_CALL_FRAMES_MAX  32 /* of each */

/* The limits that user space needs, as enum fl_limit. */
enum fl_own_limit {
	FL_LIMIT_FUNCTIONS = FL_FUNCTIONS_MAX,
	FL_LIMIT_CALLS_LEAST = FL_CALLS_MIN,
	FL_LIMIT_CALLS = FL_CALLS_MAX,
	FL_LIMIT_ARGUMENTS = FL_ARGUMENTS,
	FL_LIMIT_FETCHES = FL_FETCHES_MAX,
	FL_LIMIT_AFTER = FL_AFTER_MAX,
	FL_LIMIT_TEXTS = FL_TEXTS_MAX,
	FL_LIMIT_TEXT_BYTES = FL_TEXT_BYTES,
	FL_LIMIT_STACKS = FL_CALL_STACKS_MAX,
};

/* Everything that is counted. Losses begin with FL_LOST_RING_FULL. */
enum fl_counter {
	FL_FILTERED = 0,     /* calls of tasks that are not watched */
	FL_CALLS,            /* calls recorded: begun */
	FL_RETURNS,          /* of them, that were seen to return */
	FL_TASKS,            /* tasks that were given room; those no longer in fl_tasks are forgotten */
	FL_TRIGGERS,         /* triggers that fired */
	FL_LIVE,             /* calls handed to user space as they ended */
	FL_LOST_RING_FULL,   /* no room in the ring for a trigger */
	FL_LOST_LIVE_FULL,   /* no room in the ring for a call of --live */
	FL_LOST_LIVE_BUDGET, /* calls of --live beyond the rate that was asked for */
	FL_LOST_TASK_FULL,   /* no room in fl_tasks at that moment: a call is missing */
	FL_LOST_NESTED,      /* more than FL_OPEN_MAX calls in one another: the outermost one's end is not seen */
	FL_LOST_END,         /* calls that have ended, as what their task did next proves, and whose end was not seen */
	FL_LOST_STACK,       /* no room for the stack in any table: the call has none */
	FL_LOST_WALK,        /* the kernel could not walk the stack: a task that was preempted on that CPU was at it */
	FL_LOST_WATCH_FULL,  /* descendants of the command that are not watched: too many at once */
	FL_COUNTERS
};

/* How to get one value of a call. */
enum fl_fetch_kind {
	FL_FETCH_VALUE = 0,    /* a number of `size` bytes */
	FL_FETCH_KERNEL_TEXT,  /* the string of the kernel's that the last pointer points to */
	FL_FETCH_USER_TEXT,    /* the string of the user's that the argument points to */
	FL_FETCH_KERNEL_ARRAY, /* the string that lies in the kernel where the last offset leads to: an array of char */
	FL_FETCH_DENTRY, /* the path below its mount that ends with that struct dentry: components, leaf first, each with its NUL */
};

/* fl_fetch.flags */
enum fl_fetch_flag {
	FL_FETCH_AGAIN = 1 << 0,   /* read again at the function's end, into fl_call.after */
	FL_FETCH_OF_FD = 1 << 1,   /* the argument is a file descriptor: begin with its struct file * */
	FL_FETCH_OF_USER = 1 << 2, /* the pointers are the user's: struct sigaction of rt_sigaction(2) */
};

/*
 * One value: begin with the argument; for each of `dereferences` offsets but the last, go to the pointer that lies there; the
 * last is where the value lies. No dereferences: the argument itself.
 */
struct fl_fetch {
	u8 argument; /* 0 is the first */
	u8 kind;     /* enum fl_fetch_kind */
	u8 dereferences;
	u8 size;  /* of a number: 1, 2, 4 or 8 bytes */
	u8 flags; /* enum fl_fetch_flag */
	u8 text; /* which of fl_call.texts; fl_call.values has its length, bytes, NULs included; 0: could not be read */
	u8 after; /* FL_FETCH_AGAIN, of a number: which of fl_call.after */
	u8 pad;
	u32 offsets[FL_DEREFERENCES_MAX]; /* bytes */
	u32 pad2;
};

/* fl_condition.test: of the value against the operand. */
enum fl_test {
	FL_TEST_ALWAYS = 0,
	FL_TEST_EQUAL,
	FL_TEST_UNEQUAL,
	FL_TEST_LESS,
	FL_TEST_AT_MOST,
	FL_TEST_MORE,
	FL_TEST_AT_LEAST,
	FL_TEST_ANY_BIT,
};

/* A condition on a value that is read when a call begins. */
struct fl_condition {
	u8 value; /* which of fl_call.values */
	u8 test;  /* enum fl_test */
	u8 is_signed;
	u8 unused; /* bits of the value above the number */
	u32 pad;
	u64 operand; /* of 64 bits, with its sign */
};

/* fl_function.flags */
enum fl_function_flag {
	FL_FUNCTION_SYSCALL =
		1 << 0, /* attached to the kernel's wrapper: the arguments lie in the struct pt_regs it is given */
	FL_FUNCTION_ANYONE = 1 << 1, /* recorded for all tasks, whatever the filter: it can end another process */
	FL_FUNCTION_HAS_RESULT = 1 << 2,
	FL_FUNCTION_TRIGGER = 1 << 3,    /* returning `trigger` is a trigger */
	FL_FUNCTION_QUIET = 1 << 4,      /* watched for its trigger only: its calls are not recorded */
	FL_FUNCTION_RESULT_INT = 1 << 5, /* the result has 32 bits, signed: the register's others mean nothing */
	FL_FUNCTION_AT_END = 1 << 6,     /* something is read at its end: the loader sets it */
	FL_FUNCTION_CONTEXT =
		1 << 7, /* a BPF program: the arguments lie where its context points to, as the kernel hands them on */
	FL_FUNCTION_BEGIN = 1 << 8, /* its beginning is a trigger, if `condition` holds */
	FL_FUNCTION_EVENT = 1 << 9, /* a tracepoint: it has no end */
};

/* What to do at one function. */
struct fl_function {
	u32 flags; /* enum fl_function_flag */
	u32 fetch_count;
	s64 trigger;
	u64 anyone_mask; /* FL_FUNCTION_ANYONE only where this argument has one of these bits, O_TRUNC of open(2); 0: always */
	u32 anyone_argument;
	u32 pad;
	struct fl_condition condition; /* FL_FUNCTION_BEGIN */
	struct fl_fetch fetches[FL_FETCHES_MAX];
};

/* fl_call.state */
enum fl_call_state {
	FL_CALL_NONE = 0, /* no call yet at this place */
	FL_CALL_OPEN,     /* begun, and not seen to return */
	FL_CALL_ENDED,
	FL_CALL_END_MISSED, /* it has ended, and nobody saw how: user space finds it, src/probe/abi/call.rs */
};

/* fl_call.context: what the processor did when the call began. Each comes on top of those before it, and ends before they go on. */
enum fl_context {
	FL_CONTEXT_TASK = 0,
	FL_CONTEXT_SOFTIRQ,
	FL_CONTEXT_HARDIRQ,
	FL_CONTEXT_NMI,
	FL_CONTEXT_UNKNOWN, /* the kernel has no variable that says it */
};

/* One call. */
struct fl_call {
	u64 sequence;    /* of the task's calls, from 0 */
	u64 entered_ns;  /* CLOCK_BOOTTIME */
	u64 duration_ns; /* once it has ended */
	s64 result;      /* the whole register; once it has ended */
	u32 function;    /* its number */
	s32 stack;       /* of the kernel: its id + FL_CALL_STACKS_MAX * its table; negative: none */
	enum fl_call_state state;
	u32 unread; /* bit N: fetches[N] could not be read; bit 16 + N: after[N] could not */
	u32 behind; /* it began behind so many calls of its task, from the innermost that had not been seen to end; 0: there was none */
	enum fl_context context;
	u64 arguments[FL_ARGUMENTS]; /* as they were passed: those that the function has */
	u64 values[FL_FETCHES_MAX];
	u64 after[FL_AFTER_MAX];
	char texts[FL_TEXTS_MAX * FL_TEXT_BYTES]; /* one after the other */
};

/* A call that has not returned. */
struct fl_open {
	u64 sequence;
	u32 function;
	u32 pad;
};

/* What a sample in the ring is: its first word. */
enum fl_sample_kind { FL_SAMPLE_TRIGGER = 0, FL_SAMPLE_LIVE };

/* What fired. */
enum fl_trigger_kind { FL_TRIGGER_SIGNAL = 0, FL_TRIGGER_RESULT, FL_TRIGGER_BEGIN };

/*
 * The beginning of a sample. The sample of a trigger is the task's whole entry of fl_tasks, or this alone if the task has none; that of
 * --live has one struct fl_call behind it.
 */
struct fl_event {
	enum fl_sample_kind kind;
	enum fl_trigger_kind trigger;
	u64 timestamp_ns; /* CLOCK_BOOTTIME */
	u32 tid;
	u32 pid;
	u32 signal;     /* FL_TRIGGER_SIGNAL */
	u32 function;   /* FL_TRIGGER_RESULT, FL_TRIGGER_BEGIN */
	s64 result;     /* FL_TRIGGER_RESULT */
	u32 is_certain; /* 0: in an interrupt, or no process of its own: the task only happened to run */
	u32 calls;      /* that follow */
	char comm[FL_COMM_BYTES];
};

/* The task that calls belong to. In fl_tasks its calls follow: as many as fl_config.calls, then FL_TEXT_BYTES of slack. */
struct fl_task {
	struct fl_event event; /* the last trigger: written when it is sent */
	u64 start_boottime_ns; /* of the thread: two threads with the same number differ by it */
	u64 next;              /* the sequence of its next call */
	u32 tid;
	u32 pid;
	u32 open_count; /* calls that have not returned: the last FL_OPEN_MAX of them are kept */
	u32 watched;    /* by the filter: asked once, where the answer is yes */
	u64 settled;    /* a sequence: earlier calls have ended, but for those that are in `open` */
	u64 doubted; /* a sequence: a call whose beginning was not seen has ended; earlier calls may have been made in it */
	u32 open_syscall; /* open_count as it was once the task's system call had begun; 0: that has ended, or there is none */
	u32 is_sent;                      /* `event` is being sent: an interrupt of the task leaves it alone */
	char comm[FL_COMM_BYTES];         /* of the group leader */
	struct fl_open open[FL_OPEN_MAX]; /* the place is the count's, modulo FL_OPEN_MAX */
};

/* What the loader decides before the programs are verified. */
struct fl_config {
	u64 trigger_signals; /* bit N-1: signal N is a trigger */
	u32 calls;           /* that are kept of each task: a power of two, FL_CALLS_MIN to FL_CALLS_MAX */
	u32 live;            /* calls handed on a second, of each processor; 0: none */
	u32 places;          /* in fl_functions: two for each function */
	u8 kernel_stacks;
	u8 pad[3];
};

_Static_assert(sizeof(struct fl_fetch) == 24, "fl_fetch has a hole");
_Static_assert(sizeof(struct fl_function) == 48 + FL_FETCHES_MAX * 24, "fl_function has a hole");
_Static_assert(sizeof(struct fl_call) ==
		       56 + (FL_ARGUMENTS + FL_FETCHES_MAX + FL_AFTER_MAX) * 8 + FL_TEXTS_MAX * FL_TEXT_BYTES,
	       "fl_call has a hole");
_Static_assert(sizeof(struct fl_task) == 64 + 72 + FL_OPEN_MAX * 16, "fl_task has a hole");
_Static_assert(sizeof(struct fl_event) == 64, "fl_event has a hole");

#endif
