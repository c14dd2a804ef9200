/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses from the kernel programs to user space: here what all probes share, in abi/PROBE.h the keys, values, records
 * and limits of each. There, too, are enum fl_counter (everything that is counted) and struct fl_config.
 *
 * No kernel types here. Rust gets these types through the skeleton's BTF, never by a copy made by hand; that is why enums
 * are the types of fields and keys. The sizes are asserted at the end of this file and again in tests/abi.rs.
 */
#ifndef FL_ABI_H
#define FL_ABI_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;

#include "arch.h"

#define FL_COMM_BYTES       16   /* TASK_COMM_LEN, with the closing NUL */
#define FL_NAMES_MAX        16   /* --process-name, how often */
#define FL_PIDS_MAX         1024 /* --pid, how often */
#define FL_DESCENDANTS_MAX  8192 /* live descendants of the watched command */
#define FL_BUILD_ID_BYTES   20   /* BUILD_ID_SIZE_MAX, include/linux/buildid.h */
#define FL_PIECE_BYTES      4096 /* in which memory is copied: the smallest page that there is */
#define FL_WAKE_INTERVAL_MS 50   /* the reader of the ring is woken once in so long, and looks by itself meanwhile */
#define FL_STRINGS_BYTES    4096 /* all paths of one record together: PATH_MAX */
#define FL_NAME_BYTES       256  /* NAME_MAX and the closing NUL: one component of a path */
#define FL_PATH_DEPTH_MAX   32   /* components of a path, mounts included; each costs the verifier a round */

/* The limits that user space needs. A number in an enum crosses with the types, so that no copy of it is made by hand. */
enum fl_limit {
	FL_LIMIT_PIECE_BYTES = FL_PIECE_BYTES,
	FL_LIMIT_WAKE_INTERVAL_MS = FL_WAKE_INTERVAL_MS,
	FL_LIMIT_ERRNO = 4095, /* MAX_ERRNO, include/linux/err.h: results from minus this to -1 are errors */
};

/*
 * Numbers that stand for what only the loader knows, which replaces them: the ids of bpf_rdonly_cast() and of struct pt_regs
 * (load.bpf.h), the function that a program is for, the kernel's variable that says what a processor is in (call.bpf.c).
 */
#define FL_MARK(number) (0x7f6c0000 + (number))
enum fl_mark {
	FL_MARK_RDONLY_CAST = FL_MARK(1),
	FL_MARK_PT_REGS = FL_MARK(2),
	FL_MARK_WHICH = FL_MARK(3),
	FL_MARK_PREEMPT_COUNT = FL_MARK(4),
};

/* What may be done with a mapping: the letters of /proc/PID/maps, and what only the kernel knows. */
enum fl_permission {
	FL_READABLE = 1 << 0,
	FL_WRITABLE = 1 << 1,
	FL_EXECUTABLE = 1 << 2,
	FL_SHARED = 1 << 3,     /* what is written is the file's */
	FL_GROWS_DOWN = 1 << 4, /* the main thread's stack */
};

/* A mapping of a process. */
struct fl_vma {
	u64 vm_start;
	u64 vm_end;      /* exclusive; 0: no such mapping */
	u64 file_offset; /* of vm_start in the file, bytes */
	enum fl_permission permissions;
	u32 file; /* 1 + index in the record's files; 0: anonymous, or no room */
};

/* fl_file.flags */
enum fl_file_flag {
	FL_FILE_DELETED = 1 << 0,  /* unlinked when the record was taken (a memfd always is) */
	FL_FILE_PATH_CUT = 1 << 1, /* the path is longer than what was left of the record's strings */
};

/* A file by identity and by the name that it had. Names are in the record's strings: components, leaf first, each with its NUL. */
struct fl_file {
	u64 inode;  /* i_ino */
	u32 device; /* s_dev as the kernel has it: major << 20 | minor */
	enum fl_file_flag flags;
	u32 path_offset;     /* in the record's strings, bytes */
	u32 path_length;     /* bytes, NULs included */
	u32 build_id_length; /* bytes; 0: not read (the page was not in memory, or there is none) */
	u8 build_id[FL_BUILD_ID_BYTES];
};

/* The size of a process that the kernel killed, in pages, as roughly as in the kernel's own log. */
struct fl_memory {
	u64 total_vm;
	u64 rss_file;
	u64 rss_anon;
	u64 rss_shmem;
};

/* Why the kernel has sent a signal on its own account. */
enum fl_reason_kind {
	FL_REASON_NONE = 0,        /* it did not, or nothing proves why */
	FL_REASON_BROKEN_PIPE,     /* nobody reads what the process has written */
	FL_REASON_FILE_SIZE,       /* RLIMIT_FSIZE, bytes */
	FL_REASON_CPU_TIME,        /* RLIMIT_CPU, seconds: the soft limit, for SIGKILL the hard one */
	FL_REASON_REAL_TIME,       /* RLIMIT_RTTIME, microseconds: the same */
	FL_REASON_TIMER,           /* setitimer(2), alarm(2), timer_create(2) */
	FL_REASON_CHILD_ENDED,     /* the exit signal that clone(2) was given; value: the child */
	FL_REASON_PARENT_ENDED,    /* PR_SET_PDEATHSIG */
	FL_REASON_TRACER_ENDED,    /* PTRACE_O_EXITKILL; value: the tracer */
	FL_REASON_NAMESPACE_ENDED, /* process 1 of its pid namespace has ended; value: that one, as the host numbers it */
	FL_REASON_CGROUP_KILL,     /* somebody has written to cgroup.kill */
	FL_REASON_CGROUP_MEMORY,   /* a memory cgroup has reached its limit, bytes */
	FL_REASON_CGROUP_GROUP, /* memory.oom.group: another process of its cgroup was chosen, for the same reason or the host's */
	FL_REASON_HOST_MEMORY, /* the memory that the process may use was short, and no cgroup's limit is the reason */
	FL_REASON_DESCRIPTOR,  /* O_ASYNC, F_SETLEASE, F_NOTIFY; value: the descriptor */
	FL_REASON_MESSAGE,     /* mq_notify(3); value: who sent the message */
	FL_REASON_TERMINAL,    /* a key that stands for the signal, TIOCSIG, another size of the window */
	FL_REASON_HANGUP,      /* the terminal was hung up */
	FL_REASON_BACKGROUND,  /* a process of the same group has used the terminal in the background */
	FL_REASON_SESSION,     /* the leader of its session has ended; value: that one */
	FL_REASON_ORPHANED, /* the end of another process has left its stopped group without a parent; value: that one */
	FL_REASON_DEADLINE, /* SCHED_FLAG_DL_OVERRUN: a thread has used up its time before its deadline */
};

/* fl_reason.flags */
enum fl_reason_flag {
	FL_REASON_HAS_LIMIT = 1 << 0,
	FL_REASON_HAS_VALUE = 1 << 1,
};

struct fl_reason {
	enum fl_reason_kind kind;
	enum fl_reason_flag flags;
	u64 limit;
	u64 value;  /* what has reached it, in the same unit; or as above */
	u64 cgroup; /* whose limit it is, number of the folder's inode; 0: no cgroup's */
};

/* The code of functions of the kernel that choose a process because memory is short. 0: not known. */
struct fl_code_range {
	u64 start;
	u64 end;
};
struct fl_oom_code {
	struct fl_code_range any;    /* out_of_memory() */
	struct fl_code_range cgroup; /* mem_cgroup_out_of_memory() */
	struct fl_code_range member; /* oom_kill_memcg_member() */
	struct fl_code_range asked;  /* moom_callback(): by SysRq, memory need not be short */
};

/* Which tasks are watched, and what this machine is like: decided before the programs are verified, so that what is off costs nothing. */
struct fl_filter_config {
	u64 pid_namespace_inode; /* not 0: pids that were typed are those of this pid namespace */
	u64 cgroup;              /* with by_cgroup: the number of the folder's inode */
	u32 command_starter;     /* not 0: new children of this thread are the watched command */
	u32 own_pid;             /* not 0: children of this process that other threads of it have started are ours */
	u32 name_count;
	u32 page_shift; /* a page has 1 << page_shift bytes */
	u8 by_pid;
	u8 by_cgroup;
	u8 by_descent;
	u8 is_filtered;         /* by any of these, or by name: without one, a program asks nothing else */
	u8 has_typed_arguments; /* the kernel knows the types of the hook's arguments: of a plain build only (load.bpf.h) */
	u8 pad[3];
	char names[FL_NAMES_MAX][FL_COMM_BYTES];
};

_Static_assert(sizeof(struct fl_reason) == 32, "fl_reason has a hole");
_Static_assert(sizeof(struct fl_vma) == 32, "fl_vma has a hole");
_Static_assert(sizeof(struct fl_filter_config) == 40 + FL_NAMES_MAX * FL_COMM_BYTES, "fl_filter_config has a hole");
_Static_assert(sizeof(struct fl_file) == 48, "fl_file has a hole");

#endif
