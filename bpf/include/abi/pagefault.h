/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses from bpf/pagefault.bpf.c to user space.
 */
#ifndef FL_ABI_PAGEFAULT_H
#define FL_ABI_PAGEFAULT_H

#include "../abi.h"

#define FL_PROCESSES_MAX    8192  /* whose names are kept: those that faulted last */
#define FL_SENT_MAX         16384 /* mappings that user space knows: those that were sent last */
#define FL_FAULT_FRAMES_MAX 127   /* PERF_MAX_STACK_DEPTH */
#define FL_PLACES_MAX       32    /* that each processor remembers with what lies there: a power of 2 */
#define FL_NEAR_FAULTS_BITS 6     /* rows of fl_near_faults in an epoch: a power of 2 */
#define FL_NEAR_FAULTS_MAX  (1 << FL_NEAR_FAULTS_BITS)
#define FL_THREADS_MAX      4096 /* whose last fault's error code is kept until it is known to be major: a power of 2 */

/* The limits that user space needs, as enum fl_limit. */
enum fl_own_limit {
	FL_LIMIT_FAULT_FRAMES = FL_FAULT_FRAMES_MAX,
	FL_LIMIT_NEAR_FAULTS = FL_NEAR_FAULTS_MAX,
};

/* What is counted beside the faults in fl_faults, and what is lost. */
enum fl_counter {
	FL_FILTERED = 0,    /* faults of tasks that the filters leave out */
	FL_LOST_TABLE_FULL, /* faults that found no place in fl_faults: counted here only */
	FL_MAJOR,           /* major faults of watched tasks */
	FL_LOST_MAJOR,      /* major ones whose place in the table is unknown */
	FL_LOST_STACK_FULL, /* new stacks that found no place in fl_stacks */
	FL_LOST_MAPPINGS,   /* mappings that were not sent: no room in the ring */
	FL_EVENTS,          /* records of single faults handed to user space */
	FL_LOST_RING_FULL,  /* no room in the ring for one */
	FL_LOST_RATE,       /* more of them than --rate allows */
	FL_LOST_SAMPLED,    /* left out by --sample */
	FL_LOST_WATCH_FULL, /* a descendant that could not be watched: FL_DESCENDANTS_MAX alive already */
	FL_MAJOR_RUNS,      /* runs of fl_major, for any task: the kernel skips some and counts none of these */
	FL_SOFT_RUNS,       /* the same of fl_soft */
	FL_COUNTERS
};

/* Where the processor was. */
enum fl_fault_mode { FL_MODE_USER = 0, FL_MODE_KERNEL };

/* What lies at the fault address. */
enum fl_vma_class {
	FL_VMA_NOT_ASKED = 0,
	FL_VMA_NONE,      /* nothing */
	FL_VMA_ANONYMOUS, /* memory of the process's own */
	FL_VMA_FILE,
	FL_VMA_STACK, /* of the main thread; also where it is about to grow */
	FL_VMA_HEAP,  /* brk(2) */
	FL_VMA_SHARED, /* a shared mapping of tmpfs: shm_open(3), memfd_create(2), shmget(2), MAP_SHARED | MAP_ANONYMOUS */
	FL_VMA_VDSO, /* code and data that the kernel shows every process */
};

/* What fl_fault_key.place is. */
enum fl_fault_by {
	FL_BY_PROCESS = 0, /* 0 */
	FL_BY_ADDRESS,     /* the page's address */
	FL_BY_INSTRUCTION, /* the instruction's address */
	FL_BY_VMA,         /* vm_start; of a stack its last page */
	FL_BY_FILE,        /* the inode's number, with device */
	FL_BY_STACK,       /* the hash of the frames' addresses: the key of fl_stack_ids */
};

/* How faults are seen, which decides what is known about them. */
enum fl_fault_hook { FL_HOOK_TRACEPOINT = 0, FL_HOOK_KPROBE, FL_HOOK_PERF };

/* What faults are counted by. FL_BY_PROCESS: only FL_PROCESS_KEY_BYTES of it. */
struct fl_fault_key {
	u32 tgid;
	u32 error_code; /* of a kprobe: made up of what it knows of the access; of a perf event: 0 */
	u8 mode;        /* enum fl_fault_mode */
	u8 vma_class;   /* enum fl_vma_class */
	u8 epoch;       /* fl_epochs[0] when it was counted */
	u8 pad;
	u32 device; /* with FL_BY_FILE: s_dev */
	u64 place;
};

#define FL_PROCESS_KEY_BYTES 12

/* A row that is found without a hash table. Its count comes first: if it is 0, there is no key yet. */
struct fl_near_fault {
	u64 count;
	struct fl_fault_key key;
};

/* A process that had faults. */
struct fl_fault_process {
	char comm[FL_COMM_BYTES]; /* of the group leader */
	u32 ppid;
	u32 mount_namespace; /* inode number of /proc/PID/ns/mnt */
};

/* What of a stack is in fl_stacks. */
enum fl_stack_frames {
	FL_STACK_WHOLE = 0,
	FL_STACK_CALLERS,   /* all but the innermost frame */
	FL_STACK_INNERMOST, /* nothing: there is no other frame */
};

/* Where a stack is. */
struct fl_stack_place {
	u64 innermost; /* address of the innermost frame */
	u32 id;        /* in fl_stacks */
	enum fl_stack_frames frames;
	u32 count; /* of frames, the innermost included: the kernel's own walk may go on through junk */
	u32 pad;
};

/* What a sample in the ring is: its first word. */
enum fl_sample_kind { FL_SAMPLE_MAPPING = 0, FL_SAMPLE_FAULT };

/* The mapping of a place, an instruction or a frame. */
struct fl_fault_mapping {
	enum fl_sample_kind kind;
	u32 tgid;
	u64 timestamp_ns; /* CLOCK_BOOTTIME */
	struct fl_vma vma;
	struct fl_file file; /* with vma.file; inode 0: no file */
	enum fl_vma_class vma_class;
	u32 strings_length;                             /* of the path, NULs included: what follows is not sent */
	char strings[FL_STRINGS_BYTES + FL_NAME_BYTES]; /* components, leaf first, each with its NUL */
};

/* One page fault. */
struct fl_fault_event {
	enum fl_sample_kind kind;
	u32 tid;
	u64 timestamp_ns; /* CLOCK_BOOTTIME */
	u64 address;
	u64 instruction_pointer;
	struct fl_fault_key key;
	char comm[FL_COMM_BYTES]; /* of the group leader */
	char thread_name[FL_COMM_BYTES];
	u32 cpu;
	u32 pad;
};

/* The record under construction, for record.bpf.h. */
#define FL_RECORD struct fl_fault_mapping

/* What the loader decides before the programs are verified: what is off costs nothing, its branches are gone. */
struct fl_config {
	enum fl_fault_by by;
	enum fl_fault_hook hook;
	u32 frames;     /* with FL_BY_STACK: to walk, 1..FL_FAULT_FRAMES_MAX */
	u32 event_each; /* every so many faults of a processor there is an event; 0: no events */
	u32 event_rate; /* events a second of all processors; 0: no limit */
	u8 classes;     /* look the VMA's class up */
	u8 majors;      /* fl_major is attached */
	u8 modes;       /* 1 << FL_MODE_*: which are counted */
	u8 near;        /* use fl_near_faults */
};

_Static_assert(sizeof(struct fl_near_fault) == 32, "fl_near_fault has a hole");
_Static_assert(sizeof(struct fl_fault_key) == 24, "a key has no holes, or equal ones would differ");
_Static_assert(__builtin_offsetof(struct fl_fault_key, device) == FL_PROCESS_KEY_BYTES,
	       "what comes first is the short key");
_Static_assert(sizeof(struct fl_fault_process) == 24, "fl_fault_process has a hole");
_Static_assert(sizeof(struct fl_fault_event) == 96, "fl_fault_event has a hole");
_Static_assert(__builtin_offsetof(struct fl_fault_mapping, strings) == 104, "fl_fault_mapping has a hole");

#endif
