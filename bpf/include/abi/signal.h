/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses from bpf/signal.bpf.c to user space.
 */
#ifndef FL_ABI_SIGNAL_H
#define FL_ABI_SIGNAL_H

#include "../abi.h"

#define FL_PEERS_MAX      8    /* --from and --to, how often each */
#define FL_PAIRS_MAX      4096 /* rows of fl_pairs, unless the loader says otherwise */
#define FL_NEAR_PAIRS_MAX 64   /* rows in fl_near_pairs: a power of 2 */

/* The limits that user space needs, as enum fl_limit. */
enum fl_own_limit {
	FL_LIMIT_PAIRS = FL_PAIRS_MAX,
	FL_LIMIT_NEAR_PAIRS = FL_NEAR_PAIRS_MAX,
};

/*
 * Everything that is counted. One program counts signals and another one processes, because they interrupt each other on one CPU;
 * those from FL_LOST_RING_FULL on count losses, by reason.
 */
enum fl_counter {
	FL_FILTERED = 0,   /* watched signals between tasks that the filters leave out */
	FL_SIGNALS,        /* watched signals of watched tasks, but for those that a row of fl_near_pairs has counted */
	FL_RECORDS,        /* records handed to user space */
	FL_FORKS,          /* new processes of watched tasks */
	FL_THREADS,        /* new threads */
	FL_EXECS,          /* processes that run another program */
	FL_EXITS,          /* processes that have ended */
	FL_THREAD_EXITS,   /* threads that have ended and left others behind */
	FL_LOST_RING_FULL, /* no room in the ring for a signal */
	FL_LOST_EVENT_FULL, /* no room in the ring for a fork, an exec or an exit */
	FL_LOST_PAIRS_FULL, /* no room in fl_pairs: the signal is in no row of a summary */
	FL_LOST_WATCH_FULL, /* a descendant that could not be watched: FL_DESCENDANTS_MAX alive already */
	FL_COUNTERS
};

/* What a sample in the ring is: its first word. */
enum fl_sample_kind { FL_SAMPLE_SIGNAL = 0, FL_SAMPLE_OOM, FL_SAMPLE_FORK, FL_SAMPLE_EXEC, FL_SAMPLE_EXIT };

/* TRACE_SIGNAL_*, include/trace/events/signal.h; and one for hooks that don't show it. */
enum fl_result {
	FL_RESULT_DELIVERED = 0,
	FL_RESULT_IGNORED,
	FL_RESULT_ALREADY_PENDING,
	FL_RESULT_LOST,      /* TRACE_SIGNAL_OVERFLOW_FAIL: a real-time signal, and the queue was full */
	FL_RESULT_LOST_INFO, /* TRACE_SIGNAL_LOSE_INFO: it is delivered without its siginfo */
	FL_RESULT_UNKNOWN,
};

/* fl_signal.flags */
enum fl_signal_flag {
	FL_SIGNAL_HAS_SENDER = 1 << 0, /* sender: a process sent it, in its own context */
	FL_SIGNAL_TO_PROCESS = 1 << 1, /* any of its threads may take it */
	FL_SIGNAL_HAS_MEMORY = 1 << 2, /* memory: the kernel killed the target */
	FL_SIGNAL_HAS_CODE = 1 << 3,   /* si_code */
	FL_SIGNAL_TYPED_ONLY =
		1
		<< 4, /* seen at the system call: target.pid is the number that was given, and nothing else is known */
};

/* A process, or one thread of it. */
struct fl_party {
	u32 pid; /* tgid, as the host sees it */
	u32 tid;
	u32 pid_in_namespace;     /* tgid in the innermost pid namespace */
	u32 uid;                  /* real; of the sender only */
	char comm[FL_COMM_BYTES]; /* of the group leader */
};

/* A signal on its way. */
struct fl_signal {
	enum fl_sample_kind kind;
	u32 signal;
	u64 timestamp_ns; /* CLOCK_BOOTTIME */
	s32 si_code;
	enum fl_signal_flag flags;
	enum fl_result result;
	u32 cpu;
	struct fl_party sender;
	struct fl_party target;
	struct fl_memory memory; /* of the target */
	u64 cgroup;              /* the target's, number of the folder's inode */
	struct fl_reason reason; /* why the kernel has sent it */
};

/* The target of a kill, before or after this, was chosen because memory is short. */
struct fl_oom {
	enum fl_sample_kind kind;
	u32 pid;
	u64 timestamp_ns;
};

/* fl_process.flags */
enum fl_process_flag {
	FL_PROCESS_IS_THREAD = 1 << 0, /* not the first, at a fork; not the last, at an exit */
	FL_PROCESS_PATH_CUT = 1 << 1,
};

/* A task that was made, or has ended. */
struct fl_process {
	enum fl_sample_kind kind;
	enum fl_process_flag flags;
	u64 timestamp_ns; /* CLOCK_BOOTTIME */
	u32 pid;          /* the task itself, as the host sees it */
	u32 tgid;
	u32 ppid;
	u32 pid_in_namespace;
	u32 uid;
	u32 status; /* of an exit, as wait(2) has it */
	char comm[FL_COMM_BYTES];
};

/* A process that runs another program. Sent up to the end of its strings. */
struct fl_exec {
	struct fl_process process;
	u32 path_offset; /* in strings, bytes: components, leaf first, each with its NUL */
	u32 path_length;
	u32 cgroup_offset;
	u32 cgroup_length;
	u32 strings_length;
	u32 pad;
	char strings[FL_STRINGS_BYTES + FL_NAME_BYTES]; /* the slack lets the last component be read whole */
};

/* The record under construction, for record.bpf.h. */
#define FL_RECORD struct fl_exec

/* A row of a summary. */
struct fl_pair {
	u8 signal;
	u8 result;
	u8 has_sender;
	u8 pad[5];
	char sender[FL_COMM_BYTES];
	char target[FL_COMM_BYTES];
};

struct fl_pair_count {
	u64 count;
	u64 first_ns; /* CLOCK_BOOTTIME */
	u64 last_ns;
	u64 last_jiffies; /* when last_ns was taken: at most once a tick */
};

/* A row that is found without a hash table. Its counts come first: if they are 0, there is no key yet. And all rows. */
struct fl_near_pair {
	struct fl_pair_count counts;
	struct fl_pair key;
};
struct fl_near_table {
	struct fl_near_pair rows[FL_NEAR_PAIRS_MAX];
};

/* --from, --to: a pid, or a part of a name. */
struct fl_peer {
	u32 pid; /* 0: by name */
	u32 length;
	char name[FL_COMM_BYTES];
};

/* What the loader decides before the programs are verified: what is off costs nothing, its branches are gone. */
struct fl_config {
	u64 signals; /* bit N - 1: watch signal N */
	u32 from_count;
	u32 to_count;
	u8 pairs;      /* count by pair */
	u8 records;    /* send records */
	u8 processes;  /* forks, execs and exits, too */
	u8 near_pairs; /* use fl_near_pairs */
	u8 only_pairs; /* nothing but count all signals in near_pairs, and we have the host's numbers of processes */
	u8 pad[3];
	struct fl_peer from[FL_PEERS_MAX];
	struct fl_peer to[FL_PEERS_MAX];
};

_Static_assert(sizeof(struct fl_pair) == 40, "a key has no holes, or equal ones would differ");
_Static_assert(sizeof(struct fl_near_table) <= 32 << 10, "a value of each processor has so much room");
_Static_assert(sizeof(struct fl_near_pair) == 72, "fl_near_pair has a hole");
_Static_assert(sizeof(struct fl_signal) == 168, "fl_signal has a hole");
_Static_assert(sizeof(struct fl_exec) % 8 == 0, "a record is whole words");

#endif
