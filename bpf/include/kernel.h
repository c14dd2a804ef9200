/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel types that the programs read, and no others, declared by hand for CO-RE.
 *
 * Order and size of the fields here mean nothing: libbpf relocates each access with the running kernel's BTF. A field
 * that only some kernels have stands here with the release that brought or removed it, and is read behind
 * bpf_core_field_exists().
 */
#ifndef FL_KERNEL_H
#define FL_KERNEL_H

/* bpf_tracing.h: the fields of pt_regs have the kernel's own names. */
#define __VMLINUX_H__ 1

#include "abi.h"

typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s16 __s16;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u64 __be64;
typedef u16 __sum16;
typedef u32 __wsum;
typedef _Bool bool;
enum { false = 0, true = 1 };

#define NULL ((void *)0)

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_STACK_TRACE = 7,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29, /* v5.11 */
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_F_STACK_BUILD_ID = 1 << 5, BPF_F_USER_STACK = 1 << 8 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };
enum { BPF_RB_AVAIL_DATA = 0, BPF_RB_RING_SIZE = 1 };
enum { BPF_RINGBUF_HDR_SZ = 8 };

/* The helpers' numbers in the kernel's BTF, which show the helpers that there are. */
enum bpf_func_id___fl {
	BPF_FUNC_get_current_task_btf___fl = 158, /* v5.11 */
	BPF_FUNC_task_pt_regs___fl = 175,         /* v5.15 */
	BPF_FUNC_get_func_ret___fl = 184,         /* v5.17 */
};
enum sig_handler___fl { HANDLER_CURRENT___fl = 0 }; /* v5.16: any other value means that no handler will run */

struct bpf_raw_tracepoint_args {
	u64 args[0];
};

/* include/uapi/linux/bpf_perf_event.h */
struct bpf_perf_event_data {
	bpf_user_pt_regs_t regs;
	u64 sample_period;
	u64 addr;
};

/* include/linux/mm.h */
#define VM_READ       0x1
#define VM_WRITE      0x2
#define VM_EXEC       0x4
#define VM_SHARED     0x8
#define VM_MAYSHARE   0x80
#define VM_GROWSDOWN  0x100
#define VM_DONTEXPAND 0x40000
#define VM_ACCOUNT    0x100000
#define VM_NORESERVE  0x200000

/* include/linux/mm_types.h: enum fault_flag, enum vm_fault_reason */
#define FAULT_FLAG_WRITE       0x1
#define FAULT_FLAG_TRIED       0x20
#define FAULT_FLAG_INSTRUCTION 0x100
#define VM_FAULT_RETRY         0x400

/* include/uapi/linux/magic.h */
#define TMPFS_MAGIC     0x01021994
#define HUGETLBFS_MAGIC 0x958458f6

/* include/uapi/linux/stat.h */
#define S_IFMT  0170000
#define S_IFREG 0100000

/* include/uapi/asm-generic/resource.h */
#define RLIMIT_CPU    0
#define RLIMIT_FSIZE  1
#define RLIMIT_STACK  3
#define RLIMIT_RTTIME 15
#define RLIM_INFINITY (~0UL)

/* include/linux/sched/signal.h */
#define SIGNAL_GROUP_EXIT 0x4
#define SIGNAL_UNKILLABLE 0x40

/* include/linux/sched.h */
#define PF_EXITING  0x4
#define PF_SIGNALED 0x400 /* get_signal() sets it before the core is dumped */
#define PF_KTHREAD  0x200000

/* include/uapi/linux/sched.h */
#define SCHED_DEADLINE        6
#define SCHED_FLAG_DL_OVERRUN 4

/* include/linux/ptrace.h: PTRACE_O_EXITKILL << PT_OPT_FLAG_SHIFT */
#define PT_EXITKILL (1 << 23)

/* include/linux/pid.h: enum pid_type (v5.10 and later) */
#define FL_PIDTYPE_PID 0
#define PIDTYPE_TGID   1
#define PIDTYPE_PGID   2
#define PIDTYPE_SID    3

/* include/uapi/asm-generic/errno-base.h */
#define EEXIST 17
#define EFBIG  27
#define ENOMEM 12

/* include/uapi/asm-generic/siginfo.h */
#define SI_USER     0
#define SI_TIMER    (-2)
#define SI_ASYNCIO  (-4)
#define SI_SIGIO    (-5)
#define SI_DETHREAD (-7)
#define SI_KERNEL   0x80
#define SI_QUEUE    (-1)
#define SI_MESGQ    (-3)
#define SI_TKILL    (-6)
#define POLL_IN     1
#define POLL_HUP    6
#define SEGV_MAPERR 1
#define SEGV_ACCERR 2
#define BUS_ADRALN  1
#define BUS_ADRERR  2
#define TRAP_TRACE  2

/* Of arm64: the pointer's tag was wrong, some time before or in this very access. */
#define SEGV_MTEAERR 8
#define SEGV_MTESERR 9

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* --- files --- */
struct qstr {
	const unsigned char *name;
};
struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};
struct super_block {
	u32 s_dev;
	unsigned long s_magic;
	void *s_fs_info;
};
typedef struct {
	u32 val;
} kuid_t;
struct inode {
	unsigned short i_mode;
	kuid_t i_uid;
	unsigned long i_ino;
	s64 i_size;
	u32 i_generation; /* two files with the same number, one after the other, differ by it */
	struct super_block *i_sb;
};
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};
struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file {
	struct path f_path;
	struct inode *f_inode;
};
struct fdtable {
	u32 max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
/* A mapped file of an overlay: the file of the layer, and since v6.7 also its name on the overlay. */
struct backing_file {
	struct path user_path;
};

/* --- address spaces --- */
struct maple_tree { /* v6.1 */
	void *ma_root;
};
struct maple_range_64 {
	unsigned long pivot[15];
	void *slot[16];
};
struct maple_arange_64 {
	unsigned long pivot[9];
	void *slot[10];
};
struct rb_node {
	struct rb_node *rb_right;
	struct rb_node *rb_left;
};
struct rb_root {
	struct rb_node *rb_node;
};
struct vm_userfaultfd_ctx {
	void *ctx; /* only with CONFIG_USERFAULTFD */
};
struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	unsigned long vm_pgoff;
	struct file *vm_file;
	struct mm_struct *vm_mm;
	struct rb_node vm_rb; /* before v6.1 */
	void *anon_vma;       /* not NULL: pages of its own have been made, because it was written to */
	struct vm_userfaultfd_ctx vm_userfaultfd_ctx;
};
struct mm_struct {
	struct maple_tree mm_mt; /* v6.1 */
	struct rb_root mm_rb;    /* before v6.1 */
	struct file *exe_file;
	unsigned long total_vm; /* pages */
	unsigned long start_code;
	unsigned long start_brk;
	unsigned long brk;
	unsigned long start_stack;
	struct fl_mm_context context;
	int mm_lock_seq;         /* v6.4 */
	unsigned long task_size; /* where its address space ends */
};
struct seqcount {
	u32 sequence;
};
struct mm_struct___seqcount {
	struct seqcount mm_lock_seq; /* v6.13 */
};

struct percpu_counter {
	s64 count; /* without what processors have not added yet */
};

/* tmpfs, and hugetlbfs. */
struct shmem_sb_info {
	unsigned long max_blocks; /* 0: no limit */
	struct percpu_counter used_blocks;
};
struct hstate {
	unsigned int order;
	unsigned long nr_huge_pages;
	unsigned long free_huge_pages;
	unsigned long resv_huge_pages;
};
struct hugetlbfs_sb_info {
	struct hstate *hstate;
};

/* Resident pages by kind, MM_FILEPAGES and its like, as roughly as in the kernel's own log. Since v6.2 in counters. */
struct mm_struct___counters {
	struct percpu_counter rss_stat[4];
};
typedef struct {
	s64 counter;
} atomic64_t;
struct mm_rss_stat { /* before v6.2 */
	atomic64_t count[4];
};
struct mm_struct___stat {
	struct mm_rss_stat rss_stat;
};

/* --- cgroups --- */
struct kernfs_node {
	u64 id;                       /* the inode's number */
	struct kernfs_node *parent;   /* before v6.15 */
	struct kernfs_node *__parent; /* v6.15 */
	const char *name;
};
struct cgroup {
	struct kernfs_node *kn;
	int level;                   /* 0: the root */
	u64 ancestor_ids[1];         /* before v6.1: level + 1 of them, the root's first */
	struct cgroup *ancestors[1]; /* v6.1: the same */
};
enum cgroup_subsys_id___fl { memory_cgrp_id___fl = 0 };
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};
struct page_counter { /* pages */
	atomic64_t usage;
	unsigned long max;
};
struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
};
struct css_set {
	struct cgroup_subsys_state *subsys[1]; /* one for each controller */
	struct cgroup *dfl_cgrp;               /* in the default (v2) hierarchy */
};

/* --- tasks --- */
struct ns_common {
	u32 inum;
};
struct pid_namespace {
	struct ns_common ns;
};
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	u32 level;
	struct upid numbers[1]; /* level + 1 of them */
};
struct mnt_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
};
typedef struct {
	int counter;
} atomic_t;
struct user_namespace {
	int level;
};
struct cred {
	struct user_namespace *user_ns;
};
struct rlimit {
	unsigned long rlim_cur;
	unsigned long rlim_max;
};
struct task_cputime_atomic { /* nanoseconds */
	atomic64_t utime;
	atomic64_t stime;
};
struct thread_group_cputimer {
	struct task_cputime_atomic cputime_atomic;
};
struct seccomp {
	int mode; /* 0: no filter */
};
struct sched_rt_entity {
	unsigned long timeout; /* ticks without a sleep */
};
struct sched_dl_entity {
	unsigned int flags; /* SCHED_FLAG_* */
};
struct list_head {
	struct list_head *next;
};
struct signal_struct {
	int nr_threads;
	struct thread_group_cputimer cputimer; /* what the limit of processor time is held against */
	struct rlimit rlim[16];
	atomic_t live;
	struct pid *pids[4];
	void *tty;            /* struct tty_struct: the terminal of its session */
	unsigned long cnvcsw; /* of the children that it has waited for */
	unsigned long cnivcsw;
	unsigned long cmin_flt;
	int group_exit_code;
	u32 flags;
	struct mm_struct *oom_mm; /* not NULL: killed because memory is short */
};
typedef struct {
	unsigned long sig[1]; /* _NSIG_WORDS on 64 bits */
} sigset_t;
struct sigaction {
	void *sa_handler; /* a pointer, or CO-RE does not match it */
};
struct k_sigaction {
	struct sigaction sa;
};
struct sighand_struct {
	struct k_sigaction action[64]; /* _NSIG */
};
struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	int exit_signal;     /* of a group leader: what its parent gets at its end */
	int pdeath_signal;   /* PR_SET_PDEATHSIG */
	unsigned int ptrace; /* PT_* */
	struct sched_rt_entity rt;
	struct sched_dl_entity dl;
	unsigned int policy; /* SCHED_* */
	char comm[FL_COMM_BYTES];
	void *stack;
	struct thread_info thread_info;
	u32 flags; /* PF_* */
	u32 personality;
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *parent; /* the process that waits for it: its tracer, if it has one */
	struct task_struct *group_leader;
	struct list_head children; /* of this thread */
	struct pid *thread_pid;
	struct signal_struct *signal;
	struct sighand_struct *sighand;
	sigset_t blocked;
	unsigned long sas_ss_sp; /* sigaltstack(2) */
	unsigned long sas_ss_size;
	const struct cred *cred;
	struct seccomp seccomp;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct css_set *cgroups;
	struct thread_struct thread;
	u64 start_boottime;
	u64 self_exec_id;
};

/* --- signals --- */
union __sifields {
	struct {
		int _pid;
		u32 _uid;
	} _kill;
	struct {
		void *_addr;
	} _sigfault;
	struct {
		int _fd;
	} _sigpoll;
	struct {
		void *_call_addr;
		int _syscall;
		u32 _arch;
	} _sigsys;
};
struct kernel_siginfo {
	struct {
		int si_signo;
		int si_code;
		union __sifields _sifields;
	};
};

#pragma clang attribute pop

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "load.bpf.h"

/* What every siginfo has from si_code on, on 64-bit architectures: include/uapi/asm-generic/siginfo.h. One read is cheaper than two. */
struct fl_signal_head {
	s32 code;
	u32 pad;
	u64 address; /* si_addr of a fault, something else in other signals */
};

static __always_inline void fl_read_head(struct fl_signal_head *head, const struct kernel_siginfo *info)
{
	fl_copy(head, sizeof(*head), (const char *)info + bpf_core_field_offset(struct kernel_siginfo, si_code));
}

/* struct syscall_trace_enter and syscall_trace_exit, kernel/trace/trace.h, as perf hands them to programs. */
struct fl_syscall_event {
	u64 common;
	u64 number;
	u64 words[6]; /* the arguments that the call has; at the end the result */
};

/* The number in the namespace at this level. numbers[] is as long as the namespaces are deep, so that it is addressed by hand. */
static __always_inline struct upid *fl_upid(struct pid *pid, u32 level)
{
	return (void *)((char *)pid + bpf_core_field_offset(struct pid, numbers) +
			(u64)level * bpf_core_type_size(struct upid));
}

/* A per-CPU value that is too large for the stack. A program that is loaded apart (Hook::apart()) has its own. */
#define FL_SCRATCH(map, value_type)                      \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, 1);                  \
		__type(key, u32);                        \
		__type(value, value_type);               \
	} map SEC(".maps")

static __always_inline void *fl_scratch(void *map)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(map, &zero);
}

#endif
