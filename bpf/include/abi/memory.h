/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses from bpf/memory.bpf.c to user space.
 */
#ifndef FL_ABI_MEMORY_H
#define FL_ABI_MEMORY_H

#include "../abi.h"

#define FL_PROCESSES_MAX 8192 /* that are watched at once */
#define FL_CALLS_MAX     4096 /* calls that change executable memory, between their beginning and their end */
#define FL_EXEC_MEMS_MAX 4096 /* rows of fl_exec_mems: a process and a kind of call each */
#define FL_PAGES_MAX     2048 /* of one range that the kernel program reads: 8 MiB, user space reads the rest */
#define FL_SCAN_MAX      512  /* mappings of a process that are looked through for executable ones */
#define FL_ARGUMENTS     6    /* of a system call */

/* The limits that user space needs, as enum fl_limit. */
enum fl_own_limit {
	FL_LIMIT_PAGES = FL_PAGES_MAX,
};

/* Everything that is counted. Losses begin with FL_LOST_RING_FULL. */
enum fl_counter {
	FL_CALLS = 0,      /* records of calls and mappings handed to user space */
	FL_PAGES,          /* pages handed to user space */
	FL_EXEC_MEMS,      /* where the whole machine is watched: calls that made anonymous memory executable */
	FL_KPROBE_CALLS,   /* by kprobes: calls of watched processes that began */
	FL_KPROBE_RETURNS, /* and that were seen to end: a kretprobe only has room for so many at once */
	FL_LOST_RING_FULL, /* no room in the ring for the record of a call: user space looks through the mappings again */
	FL_LOST_PAGES,     /* no room in the ring for a page: user space reads it again where it still can */
	FL_LOST_BUSY,      /* a program that was interrupted held the scratch memory: as FL_LOST_RING_FULL */
	FL_LOST_COMPAT,    /* mapping calls by a 32-bit number: not understood, as FL_LOST_RING_FULL */
	FL_LOST_CALL_FULL,     /* no room in fl_calls: that call is missing */
	FL_LOST_WATCH_FULL,    /* no room in fl_processes or fl_descendants: a process isn't watched */
	FL_LOST_EXEC_MEM_FULL, /* no room in fl_exec_mems: counted in FL_EXEC_MEMS only */
	FL_COUNTERS
};

/* What a sample in the ring is: its first word. */
enum fl_sample_kind { FL_SAMPLE_MAPPING = 0, FL_SAMPLE_PAGE, FL_SAMPLE_FAULT, FL_SAMPLE_FORK, FL_SAMPLE_END };

/* The call or event of a record. The names are in src/memory/record.rs. */
enum fl_call {
	FL_CALL_MMAP = 0,
	FL_CALL_MPROTECT,
	FL_CALL_PKEY_MPROTECT,
	FL_CALL_MUNMAP,
	FL_CALL_MREMAP,
	FL_CALL_BRK,
	FL_CALL_SHMAT,
	FL_CALL_SHMDT,
	FL_CALL_MADVISE,
	FL_CALL_MEMFD,
	FL_CALL_EXEC, /* what execve(2) has mapped, or is about to throw away */
	FL_CALL_EXIT, /* the process is about to end */
	FL_CALLS_KNOWN
};

/* fl_mapping.flags */
enum fl_mapping_flag {
	FL_HAS_RESULT = 1 << 0, /* the call has ended; else this is what it is about to take away */
	FL_IS_LOOK = 1 << 1,    /* no record of its own: it names the pages that come before it */
};

/*
 * One call that concerns executable memory, or one mapping of a process. The pages that were read for it come before it in
 * the ring, with the same tid and timestamp.
 */
struct fl_mapping {
	enum fl_sample_kind kind;
	enum fl_call call;
	u64 timestamp_ns; /* CLOCK_BOOTTIME */
	u32 pid;          /* tgid, as the host sees it */
	u32 tid;
	u64 arguments[FL_ARGUMENTS];
	s64 result;
	u64 address; /* the range that the call is about */
	u64 length;
	struct fl_vma vma;   /* that holds `address`; for what was mapped: afterwards */
	struct fl_file file; /* with vma.file */
	enum fl_mapping_flag flags;
	u32 pages; /* that were sent before this */
	u32 ppid;
	u32 strings_length;
	u32 pages_lost; /* that found no room in the ring */
	u32 pad;
	char comm[FL_COMM_BYTES];
	char strings[FL_STRINGS_BYTES + FL_NAME_BYTES]; /* the path: components, leaf first, each with its NUL */
};

/* One page of executable memory. */
struct fl_page {
	enum fl_sample_kind kind;
	enum fl_call call;
	u64 timestamp_ns;
	u32 pid;
	u32 tid;
	u64 address;
	u8 bytes[FL_PIECE_BYTES];
};

/* The processor was about to execute a page that it had no access to. */
struct fl_exec_fault {
	enum fl_sample_kind kind;
	u32 tid;
	u64 timestamp_ns;
	u64 address;
	u32 pid;
	u32 pad;
};

/* A watched process has begun as the child of another, or has ended. */
struct fl_life {
	enum fl_sample_kind kind;
	u32 pid;
	u64 timestamp_ns;
	u32 ppid;
	u32 pad;
};

/* Samples that are in no map: named here so that Rust gets the types. */
struct fl_samples {
	struct fl_page page;
	struct fl_exec_fault fault;
	struct fl_life life;
};

/* What is known of a watched process. */
struct fl_process {
	u32 flags;
	u32 pad;
};
#define FL_PROCESS_HAS_CODE 1 /* it has mapped executable memory by a call */
#define FL_PROCESS_VOLATILE 2 /* some of it can change without a call: writable, shared, or of an unlinked file */

/* Where the whole machine is watched: anonymous memory made executable. Counted, never sent. */
struct fl_exec_mem_key {
	u64 start_boottime_ns; /* of the process: two processes with the same number differ by it */
	u32 pid;
	enum fl_call call;
	u32 writable; /* not 0: writable and executable at once */
	u32 pad;
};
struct fl_exec_mem {
	u64 count;
	u64 bytes;
	u64 first_ns; /* CLOCK_BOOTTIME */
	u64 last_ns;
	u64 address; /* the last one's */
	u32 uid;
	u32 pad;
	char comm[FL_COMM_BYTES]; /* of the group leader */
};

/* The record under construction, for record.bpf.h. */
#define FL_RECORD struct fl_mapping

/* What the loader decides before the programs are verified. */
struct fl_config {
	u8 show_all;  /* calls that don't concern executable memory, too */
	u8 follow;    /* children of watched processes are watched, too */
	u8 pages;     /* read pages */
	u8 exec_mem;  /* count for the whole machine, and send nothing */
	u8 late_exit; /* sched_process_exit still has the memory: v6.16 */
	u8 older;     /* there may be watched processes that were there before us */
	u8 headers; /* send the ELF header below anonymous memory that becomes executable: a page outside of its range */
	u8 pad[1];
};

_Static_assert(sizeof(struct fl_mapping) % 8 == 0, "a record is whole words");
_Static_assert(sizeof(struct fl_page) == 32 + FL_PIECE_BYTES, "fl_page has a hole");
_Static_assert(sizeof(struct fl_exec_mem_key) == 24, "a key has no holes, or equal ones would differ");
_Static_assert(sizeof(struct fl_exec_mem) == 64, "fl_exec_mem has a hole");

#endif
