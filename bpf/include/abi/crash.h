/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses from bpf/crash.bpf.c to user space.
 */
#ifndef FL_ABI_CRASH_H
#define FL_ABI_CRASH_H

#include "../abi.h"

#define FL_ENDINGS_MAX 1024 /* processes that are ending at this moment, and whose end is seen more than once */
#define FL_SITES_MAX \
	256 /* places of handled faults that each processor remembers with their group, at most: a power of 2 */
#define FL_COUNT_BITS      48 /* of a count in a column of fl_group_counts: above them is whose it is */
#define FL_NESTED_MAX      3  /* of them for each thread: faults of handlers of faults */
#define FL_EXEMPLAR_FRAMES 16 /* of a group's stack in fl_stacks */
#define FL_SIGNED_FRAMES   16 /* innermost frames that make a group and a signature: the outer ones are the start-up's */
#define FL_FRAMES_MAX      127 /* PERF_MAX_STACK_DEPTH, what users know from perf and bpftrace */
#define FL_STACK_PAGES_MAX 128 /* 512 KiB */
#define FL_MAPPINGS_MAX    512 /* of a process that are looked through for executable ones */
#define FL_MODULES_MAX     24  /* executable mappings that one sample has room for */
#define FL_PARTS_MAX       16  /* samples before a record that have more of them */
#define FL_LIBCS_MAX       64  /* files of glibc that are known */
#define FL_FILES_MAX       28  /* the modules' files, the executable and the files of three VMAs */

/* The limits that user space needs, as enum fl_limit. */
enum fl_own_limit {
	FL_LIMIT_LIBCS = FL_LIBCS_MAX,
	FL_LIMIT_SITES = FL_SITES_MAX,
	FL_LIMIT_COUNT_BITS = FL_COUNT_BITS,
	FL_LIMIT_SIGNED_FRAMES = FL_SIGNED_FRAMES,
	FL_LIMIT_FRAMES = FL_FRAMES_MAX,
	FL_LIMIT_STACK_BYTES = FL_STACK_PAGES_MAX * FL_PIECE_BYTES,
};

/*
 * Everything that is counted. The first ones count events, those from FL_LOST_RING_FULL on count samples that were lost, by reason:
 * their events are counted all the same.
 */
enum fl_counter {
	FL_FILTERED = 0, /* deliveries of a watched signal to a task that the filters leave out */
	FL_FATAL,   /* to a watched task: the signal ends the process, or the kernel ends the thread as by a signal */
	FL_HANDLED, /* to a watched task: a handler runs */
	FL_IGNORED, /* to a watched task: nothing happens */
	FL_CAUGHT,  /* ends of watched tasks after a handler ran for their fault */
	FL_MAYBE_CAUGHT,   /* the same where user space is to prove that the handler had not been left */
	FL_RECORDS,        /* records handed to user space */
	FL_GROUPS_MADE,    /* groups and rests that were new */
	FL_LOST_RING_FULL, /* no room in the ring: user space is slower than the crashes */
	FL_LOST_PAGES, /* no room in the ring for a page of a stack, or for more mappings: its record has a shorter stack */
	FL_LOST_BUDGET,     /* more than the budget of samples allows: fl_config.sample_first and the fields after it */
	FL_LOST_STACK_FULL, /* a new group got no place in fl_stacks */
	FL_LOST_FAULT, /* a handled fault that was forgotten: if it ends its process, that is reported as an end of another kind */
	FL_LOST_WATCH_FULL, /* a descendant that could not be watched: FL_DESCENDANTS_MAX alive already */
	FL_MADE_UP,         /* deaths that were seen at the coredump, because the run for their delivery was skipped */
	FL_COUNTERS
};

/* What a sample in the ring is: its first word. */
enum fl_sample_kind {
	FL_SAMPLE_CRASH = 0,
	FL_SAMPLE_STACK_PAGE,
	FL_SAMPLE_MODULES, /* struct fl_crash: of which the modules and their files matter, as more of the record that follows */
};

/*
 * The disposition of a delivered signal. Caught is known only when the process ends: that end is then the event. Maybe caught: a signal frame
 * of the fault lies on the stack that is in use, and it may be a left-over of one that the handler has left.
 */
enum fl_disposition {
	FL_DISPOSED_FATAL = 0,
	FL_DISPOSED_HANDLED,
	FL_DISPOSED_IGNORED,
	FL_DISPOSED_CAUGHT,
	FL_DISPOSED_MAYBE_CAUGHT,
	FL_DISPOSED_THREAD, /* the kernel ends the thread alone */
};

/* fl_crash.flags: which of the fields are known. */
enum fl_crash_flag {
	FL_HAS_CODE = 1 << 0,       /* si_code: absent where the kernel dropped the siginfo (SIGKILL and its like) */
	FL_HAS_ADDRESS = 1 << 1,    /* fault_address */
	FL_HAS_SENDER = 1 << 2,     /* sender_pid, sender_uid */
	FL_HAS_PAGE_FAULT = 1 << 3, /* error_code: the trap is a page fault at the signal's address */
	FL_HAS_SYSCALL = 1 << 4,    /* syscall, syscall_arch, fault_address: si_call_addr */
	FL_HAS_REGISTERS = 1 << 5,  /* registers */
	FL_IS_COMPAT = 1 << 7,      /* a 32-bit task: registers are right, frames hold the instruction pointer only */
	FL_IN_PID_NAMESPACE = 1 << 10,  /* not the host's: sender_pid is a number of that namespace */
	FL_IN_USER_NAMESPACE = 1 << 11, /* not the host's: sender_uid is a number of that namespace */
	FL_PLACE_COUNTS = 1 << 8,       /* the frames show what broke: no other process sent the signal */
	FL_IS_FORGED = 1 << 6,          /* si_code says fault, and there was none: the process sent it to itself */
	FL_MAY_BE_CHILDS = 1 << 25,     /* or the kernel sent it, as the exit signal of a child */
	FL_SENDER_SEEN = 1 << 12,       /* sender_*: as the host numbers it, noted when the signal was sent */
	FL_IS_OOM = 1 << 13,            /* memory: the kernel killed the process because memory was short */
	FL_HAS_TRAP = 1 << 14,          /* trap_nr: the trap that the signal is for */
	FL_NO_TRAP = 1 << 15,       /* the signal is for no trap, whatever its si_code; neither of the two: not known */
	FL_IN_CALL = 1 << 16,       /* syscall: the system call by which the thread came into the kernel */
	FL_IS_EXECUTED = 1 << 17,   /* vma: next to it the same file is mapped executable, as a program or library is */
	FL_WAS_WRITABLE = 1 << 18,  /* vma: it was writable once */
	FL_HAS_OWN_PAGES = 1 << 27, /* vma: private, had pages or isn't accounted for: it may have been writable */
	FL_BY_USERFAULTFD = 1 << 19,  /* vma: userfaultfd is to bring its pages in */
	FL_HAS_BACKING = 1 << 20,     /* backing */
	FL_HAS_TOP = 1 << 21,         /* jump.popped, jump.caller */
	FL_HAS_CALLER_CODE = 1 << 22, /* jump.code */
	FL_HAS_SLOT = 1 << 23,        /* jump.slot_address, jump.slot */
	FL_IS_ALTERNATIVE =
		1 << 24,    /* counted in no group: what the sample that follows is if its fault was not the end */
	FL_IS_GO = 1 << 26, /* texts: of Go's frames */
	FL_FRAMES_ENDED = 1 << 9, /* frames: the chain ended with a NULL frame pointer, as the ABI wants it outermost */
};

/* What a row of fl_groups counts. */
enum fl_row_kind {
	FL_ROW_GROUP = 0, /* one bug */
	FL_ROW_REST,      /* what finds no group of its own, by executable, user, signal, code and disposition */
	FL_ROW_SUM,       /* what finds no rest either, by signal, code and disposition */
};

/*
 * What makes two deaths one bug, as far as the kernel can tell within one run. Inodes are reused, so that this key means nothing to the
 * next run. The durable name is the signature, which user space makes.
 */
struct fl_group_key {
	u64 frames; /* hash of the innermost frames, each as device, inode and offset in the file; 0: they don't count */
	u64 exe_inode; /* and its generation: fl_inode_id() */
	u32 exe_device;
	s32 si_code;
	enum fl_disposition disposition;
	u16 signal;
	u16 has_code; /* FL_CODE_MADE_UP: a rest's or a sum's, of codes that the kernel doesn't send, or that find no sum */
	u32 uid;      /* the real one, as the host sees it: nobody else's crashes can be in the group */
	enum fl_row_kind kind;
	char comm[FL_COMM_BYTES]; /* of the group leader */
};

#define FL_CODE_MADE_UP 2

/* Who has taken a row of a table: each of them has a share of it. */
enum fl_share {
	FL_SHARE_EXECUTABLE = 0,
	FL_SHARE_USER,
	FL_SHARE_CGROUP,
	FL_SHARE_USERS, /* root, or all others together */
	FL_SHARES
};
#define FL_SHARE_ROWS 2 /* of counters, in each of which each has a cell */

/* What is known of one group beside its counts. Written by the kernel program; first_ns 0: never used. */
struct fl_group {
	struct fl_group_key key;
	u64 hash;     /* of the key: its place in fl_group_ids */
	u64 first_ns; /* CLOCK_BOOTTIME */
	u64 last_ns;
	u64 last_jiffies;    /* when last_ns was taken: at most once a tick */
	u64 sampled_ns;      /* the last sample that was sent */
	u32 samples;         /* sent so far */
	u32 last_pid;        /* of one that was counted in the last tick, at worst */
	s32 stack_id;        /* in fl_stacks; negative: none */
	u16 build_id_length; /* of the executable; 0: unknown */
	u16 is_others; /* the executable belongs to another user than the one that runs it, who can't have made it up */
	u8 build_id[FL_BUILD_ID_BYTES];
	u32 serial;                           /* how many groups have had this id, with this one */
	u32 cells[FL_SHARES * FL_SHARE_ROWS]; /* of fl_shares_taken, which it was taken from */
};

/* The file of a mapping whose page could not be had, at the moment of the signal. */
struct fl_backing {
	u64 size;       /* i_size, bytes */
	u64 magic;      /* s_magic */
	u64 capacity;   /* of a tmpfs, pages, or of the pool of huge pages; 0: it has no limit, or it isn't known */
	u64 used;       /* of them, at least */
	u64 used_most;  /* of them, at most: processors that have taken pages say so late */
	u64 page_bytes; /* of hugetlbfs; 0: as everywhere */
};

/* How a thread came to where there is no code. */
struct fl_jump {
	u64 popped;             /* the word below the stack pointer: a return has just taken it */
	u64 caller;             /* the word on top of the stack: after a call the return address */
	u64 slot_address;       /* of the operand of the indirect call before `caller` */
	u64 slot;               /* what lies there */
	u8 code[FL_CALL_BYTES]; /* before `caller` */
};

#define FL_TEXTS_MAX 6 /* texts that the innermost frames of an abort hold */

/* A text that a watched process has in its memory, in the record's strings. */
struct fl_text {
	u64 address; /* where it begins */
	u64 slot; /* where the stack holds this address, with the length in the next word; of Go: to which code its frame returns */
	u32 offset; /* in strings, bytes */
	u32 length; /* bytes, without a NUL; 0: there is none */
};

/* One signal that was delivered to a watched task. The kernel program writes it as a whole, user space reads it once. */
struct fl_crash {
	enum fl_sample_kind kind;
	u32 tid;
	u64 timestamp_ns;    /* CLOCK_BOOTTIME */
	u64 thread_start_ns; /* CLOCK_BOOTTIME: two threads with the same number differ by it */
	u64 fault_address;   /* si_addr, or si_call_addr of a seccomp trap */
	u64 error_code;      /* with FL_HAS_PAGE_FAULT; bits of enum fl_arch, and others */
	u64 trap_nr;         /* with FL_HAS_TRAP */
	u64 start_brk;       /* the heap: start_brk to brk */
	u64 brk;
	u64 start_stack;                 /* of the main thread */
	u64 vdso;                        /* address, 0: none */
	u64 stack_limit;                 /* RLIMIT_STACK, bytes */
	u64 earlier_address;             /* with earlier_signal: its si_addr */
	u64 earlier_place;               /* its instruction pointer */
	u64 signal_frame;                /* where maybe caught: the address of the registers in the signal frame */
	struct fl_group_key alternative; /* with FL_IS_ALTERNATIVE: the group that it would count in */
	u32 pid;                         /* tgid, as the host sees it */
	u32 ppid;                        /* tgid of the real parent */
	u32 pid_in_namespace;            /* tgid in the innermost pid namespace */
	u32 uid;
	u32 mount_namespace; /* inode number of /proc/PID/ns/mnt */
	u32 cpu;
	u32 signal;
	s32 si_code;
	s32 sender_pid; /* tgid, as the target's pid namespace sees it; 0: from outside of it */
	u32 sender_uid;
	u32 sender_tid;   /* with FL_SENDER_SEEN */
	u32 group_serial; /* of the group: its id may be another one's by now */
	s32 syscall;      /* of a seccomp trap, or with FL_IN_CALL */
	u32 syscall_arch; /* AUDIT_ARCH_* */
	enum fl_disposition disposition;
	enum fl_crash_flag flags;
	u32 group;          /* index in fl_groups; ~0: groups are off */
	u32 end_signal;     /* where caught: the signal that ended the process; 0: it exited */
	s32 end_code;       /* its si_code, or the exit status */
	u32 earlier_signal; /* where fatal: of a fault that the thread has handled before; 0: none is known */
	s32 earlier_code;   /* its si_code */
	u32 code_length;    /* bytes of code that could be read */
	u32 exe;            /* 1 + index in files, 0: unknown */
	u32 cgroup_offset;  /* the cgroup v2 path, in strings, as a file's path */
	u32 cgroup_length;
	u32 abort_message_offset; /* what libc said before it aborted, in strings, with its NUL */
	u32 abort_message_length; /* 0: nothing, or it is not known where to look */
	u32 frame_count;
	u32 module_count;
	u32 file_count;
	u32 strings_length;       /* bytes used of strings: what follows is not sent */
	char comm[FL_COMM_BYTES]; /* of the group leader: the process's name */
	char thread_name[FL_COMM_BYTES];
	char sender_comm[FL_COMM_BYTES]; /* with FL_SENDER_SEEN */
	struct fl_memory memory;         /* with FL_IS_OOM */
	struct fl_reason reason;         /* why the kernel has sent the signal */
	struct fl_text go_panic;         /* of Go: the value of the panic that ends the process */
	struct fl_text cxx_what;         /* of C++: what() of the exception that the thread has in hand, of an abort */
	struct fl_registers registers;
	u8 code[FL_CODE_BYTES];  /* from the instruction pointer on */
	struct fl_vma vma;       /* that holds fault_address */
	struct fl_vma vma_below; /* the nearest lower and higher one where none does, or one without any permission */
	struct fl_vma vma_above;
	struct fl_vma stack_vma;   /* that holds the stack pointer */
	struct fl_vma stack_above; /* the next higher one where that is none, or has no permission */
	struct fl_vma stack_below; /* the next lower one where a signal's frame would not find room in stack_vma */
	u64 frames[FL_FRAMES_MAX +
		   1]; /* instruction pointers, innermost first; one spare to keep the verifier's masks simple */
	struct fl_backing backing; /* with FL_HAS_BACKING */
	struct fl_jump jump;
	struct fl_vma modules[FL_MODULES_MAX]; /* executable mappings: first of all that of the innermost frame */
	struct fl_file files[FL_FILES_MAX];
	struct fl_text texts[FL_TEXTS_MAX];             /* of an abort: innermost first */
	char strings[FL_STRINGS_BYTES + FL_NAME_BYTES]; /* the slack lets the last component be read whole */
};

/* A file of glibc. */
struct fl_libc {
	u64 inode;
	u32 device;
	u32 pad;
};

/* A piece of the stack of the thread whose record follows: tid and timestamp are the same. */
struct fl_stack_page {
	enum fl_sample_kind kind;
	u32 tid;
	u64 timestamp_ns;
	u64 address;
	u8 bytes[FL_PIECE_BYTES];
};

/* The record under construction, for record.bpf.h. */
#define FL_RECORD struct fl_crash

/* What the loader decides before the programs are verified: what is off costs nothing, its branches are gone. */
struct fl_config {
	u64 signals;     /* bit N - 1: watch signal N */
	u64 at_coredump; /* those whose deaths fl_dump_or_exit sees, too, because fl_deliver_exit may not */
	u64 sample_interval_ns; /* a group that has had sample_first gets one more after this time, and each time after twice as long */
	u64 seed;         /* of the hashes of shares: nobody can choose whose cell is whose */
	u32 frames;       /* to walk, 1..FL_FRAMES_MAX */
	u32 groups;       /* not 0: count in so many groups, and in one more for what finds no place */
	u32 rests;        /* so many rows more, FL_ROW_REST */
	u32 sums;         /* and so many FL_ROW_SUM */
	u32 sums_by_code; /* of them, for sums with a code; the others are enough for all without one */
	u32 living_bytes; /* of the ring: so much may wait in it of what is no death */
	u32 share_cells;  /* in each row of fl_shares_taken: a power of 2 */
	u32 sample_first; /* samples that each group gets at once; 0: every one that fits into the ring */
	u32 sample_rate;  /* samples a second of all groups together; 0: no limit */
	u32 columns;      /* not 0: processors share so many columns of counts, a power of 2; 0: each has its own */
	u32 sites;        /* entries of fl_sites, a power of 2 */
	u32 threads;      /* without FL_TYPED: entries of fl_threads, a power of 2 */
	u32 processors;   /* that there may be */
	u32 stack_pages;  /* of the stack that are copied, up to FL_STACK_PAGES_MAX; 0: none */
	u8 show_handled;
	u8 senders;      /* fl_generate is attached */
	u8 is_preempted; /* another program may run between any two instructions of fl_deliver_exit on the same processor */
	u8 at_exit;      /* fl_deliver_exit is attached to sched_process_exit, too */
	u8 sees_threads; /* a thread that seccomp ends alone can be told from a process that it ends */
};

_Static_assert(sizeof(struct fl_group_key) == 56, "a key has no holes, or equal ones would differ");
_Static_assert(sizeof(struct fl_group) == 168, "fl_group has a hole");
_Static_assert(sizeof(struct fl_crash) % 8 == 0, "a record is whole words");
_Static_assert(sizeof(struct fl_crash) < 32 * 1024, "a per-CPU value has at most PCPU_MIN_UNIT_SIZE bytes");

#endif
