// SPDX-License-Identifier: GPL-2.0-only
/*
 * `faultline pagefault`: every page fault, counted where it happens.
 *
 * Driven by raw_tp/page_fault_user and raw_tp/page_fault_kernel, which run with interrupts off before the kernel does anything
 * about the fault. If they can't be used, by a kprobe on handle_mm_fault(), else by the perf software event. The hot path is one look-up
 * in a per-CPU array. Names, mappings and stacks are taken when a key is new, never for each fault.
 * Refuses to lose a count: a fault that finds no room in the table is counted as FL_LOST_TABLE_FULL. Faults that our own reading of the
 * user's stack causes are not the process's, and not counted.
 */
#include "abi/pagefault.h"
#include "fault_event.bpf.h"
#include "filter.bpf.h"
#include "follow.bpf.h"
#include "hash.bpf.h"
#include "mapping.bpf.h"
#include "pt_regs.bpf.h"
#include "user_stack.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/*
 * How many faults there were, by struct fl_fault_key, or as much of it as is needed. Sized by the loader. Each processor counts for
 * itself, about 22 ns; user space adds up. Where there may be many processors and fl_near_faults is used, the loader makes it a table that
 * they share. Emptied by user space: see fl_epochs. Full: the fault is counted as FL_LOST_TABLE_FULL.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct fl_fault_key));
	__uint(value_size, sizeof(u64));
} fl_faults SEC(".maps");

/*
 * The most frequent keys of this processor, by a cheap hash: a look-up in fl_faults costs more than all the rest. A row belongs to the first
 * key that uses it in an epoch; another key with the same row goes to fl_faults. Each epoch has a half of its own, which user space
 * empties when it has read it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * FL_NEAR_FAULTS_MAX);
	__type(key, u32);
	__type(value, struct fl_near_fault);
} fl_near_faults SEC(".maps");

/* The major ones among them: they had to wait for a disk, so that the cost of counting doesn't matter. Sized and emptied alike. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct fl_fault_key));
	__uint(value_size, sizeof(u64));
} fl_majors SEC(".maps");

/*
 * The current epoch, 0 or 1, written by user space only. User space changes to the other one, waits until no program that has read the
 * old one runs any more, and then reads and deletes the old one's keys. No program counts in them any more, so that nothing is lost, and
 * the table holds only recent faults.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} fl_epochs SEC(".maps");

/* The names of the processes that faulted last. Full: the process without a new key for the longest time is forgotten. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FL_PROCESSES_MAX);
	__type(key, u32);
	__type(value, struct fl_fault_process);
} fl_processes SEC(".maps");

/*
 * The error code of each thread's last fault: whether a fault is major is known later, perhaps on another processor. Two threads with
 * the same place replace each other: a major fault that finds its place taken is counted as FL_LOST_MAJOR.
 */
struct fl_last_fault {
	u32 tid;
	u32 error_code;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FL_THREADS_MAX);
	__type(key, u32);
	__type(value, struct fl_last_fault);
} fl_last_faults SEC(".maps");

/* fl_last_fault.error_code: the kernel will call handle_mm_fault() again for the same fault */
#define FL_WILL_RETRY FL_PF_UNUSED_1
/* ... the current call of handle_mm_fault() is for this fault, and not for get_user_pages() */
#define FL_IS_FAULT FL_PF_UNUSED_0

/* Threads with neighbouring numbers run at the same time: their places are a cache line of 8 places apart. */
static __always_inline struct fl_last_fault *fl_last_fault_of(u32 tid)
{
	u32 place = (tid << 3 | (tid >> 9 & 7)) & (FL_THREADS_MAX - 1);

	return bpf_map_lookup_elem(&fl_last_faults, &place);
}

/* Notes the current process's name and relations, with which user space names its faults. */
__noinline int fl_note_process(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = fl_read(task, group_leader);
	struct fl_fault_process process = {};
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	fl_copy(process.comm, FL_COMM_BYTES, &leader->comm);
	process.ppid = fl_read(task, real_parent, tgid);
	process.mount_namespace = fl_read(task, nsproxy, mnt_ns, ns.inum);
	return bpf_map_update_elem(&fl_processes, &tgid, &process, BPF_ANY);
}

static __always_inline void fl_take_task(struct fl_page_fault *fault)
{
	u64 id = bpf_get_current_pid_tgid();

	fault->task = (void *)bpf_get_current_task();
	fault->tgid = id >> 32;
	fault->tid = id;
}

/* The key of the fault. False: it can't be made. */
static __always_inline bool fl_key_of(struct fl_fault_key *key, const struct fl_page_fault *fault)
{
	u32 zero = 0, *epoch = bpf_map_lookup_elem(&fl_epochs, &zero);

	key->tgid = fault->tgid;
	key->error_code = fault->error_code;
	key->mode = fault->mode;
	key->epoch = epoch ? *epoch : 0;
	if (fl_config.by == FL_BY_ADDRESS)
		key->place = fl_page_of(fault->address);
	else if (fl_config.by == FL_BY_INSTRUCTION)
		key->place = fault->ip;
	if (fl_config.classes) {
		struct task_struct *task = fault->task;
		const struct fl_place *place = fl_place_at(fl_read(task, mm), fault->address, fault->tgid);

		if (!place)
			return false;
		key->vma_class = place->vma_class;
		if (fl_config.by == FL_BY_VMA) {
			/* The stack grows down: its beginning doesn't stay. */
			key->place = place->vma_class == FL_VMA_STACK ? place->vm_end - fl_page_bytes : place->vm_start;
		} else if (fl_config.by == FL_BY_FILE) {
			key->place = place->inode;
			key->device = place->device;
		}
	}
	if (fl_config.by == FL_BY_STACK) {
		struct fl_stack_walk *walk = fl_scratch(&fl_stack_walks);

		if (!walk)
			return false;
		key->place = fl_hash_frames(walk, fault->ip, fault->sp, fault->fp);
	}
	return true;
}

/* A key, and as it is compared: by words. */
union fl_fault_words {
	struct fl_fault_key key;
	u64 words[3];
};

/* The row of this processor for `key`; NULL: another key has it. The row of a new key has no count yet. */
static __always_inline u64 *fl_near_row(const union fl_fault_words *key)
{
	const u64 odd = 0x9e3779b97f4a7c15ULL; /* fl_mix() */
	u64 hash = key->words[0] * odd + key->words[1];
	const union fl_fault_words *there;
	struct fl_near_fault *near;
	u32 slot;

	if (!fl_config.near)
		return NULL;
	if (fl_config.by != FL_BY_PROCESS)
		hash = hash * odd + key->words[2];
	/* The upper bits of a product depend on all of its factors. */
	slot = (hash * odd >> (64 - FL_NEAR_FAULTS_BITS)) + key->key.epoch * FL_NEAR_FAULTS_MAX;
	near = bpf_map_lookup_elem(&fl_near_faults, &slot);
	if (!near)
		return NULL;
	if (!near->count) {
		near->key = key->key;
		return &near->count;
	}
	there = (const void *)&near->key;
	if (key->words[0] != there->words[0] || key->words[1] != there->words[1] ||
	    (fl_config.by != FL_BY_PROCESS && key->words[2] != there->words[2]))
		return NULL;
	return &near->count;
}

/* Counts the fault in the table. True: under a new key. */
static __always_inline bool fl_count_far(const struct fl_fault_key *key)
{
	u64 one = 1, *count = bpf_map_lookup_elem(&fl_faults, key);
	s32 error;

	if (count) {
		__sync_fetch_and_add(count, 1);
		return false;
	}
	/* The cast is for kernels before v6.4, which return an int and leave the upper half of the register as it was. */
	error = bpf_map_update_elem(&fl_faults, key, &one, BPF_NOEXIST);
	if (error) {
		/* Another processor was first, or there is no room. */
		count = error == -EEXIST ? bpf_map_lookup_elem(&fl_faults, key) : NULL;
		if (!count) {
			fl_count(FL_LOST_TABLE_FULL);
			return false;
		}
		__sync_fetch_and_add(count, 1);
	}
	return true;
}

/* Sends what user space needs to name a key that is new. */
static __always_inline void fl_name_key(void *context, const struct fl_page_fault *fault,
					const struct fl_fault_key *key)
{
	struct task_struct *task = fault->task;
	u64 mm = (u64)fl_read(task, mm);

	fl_note_process();
	if (fl_config.by == FL_BY_INSTRUCTION)
		fl_send_mapping(mm, fault->ip);
	else if (fl_config.by == FL_BY_VMA || fl_config.by == FL_BY_FILE)
		fl_send_mapping(mm, fault->address);
	else if (fl_config.by == FL_BY_STACK)
		fl_keep_stack(context, key->place, mm);
}

/* One page fault of the current task. */
static __always_inline int fl_on_fault(void *context, struct fl_page_fault *fault)
{
	union fl_fault_words key = {};
	struct fl_stack_walk *walk = NULL;
	bool is_new;
	u64 *count;

	fl_take_task(fault);
	if (fl_config.by == FL_BY_STACK) {
		/* Our reading of a stack causes faults if the stack isn't there. v6.2 and later skip some of them by themselves. */
		walk = fl_scratch(&fl_stack_walks);
		if (!walk || walk->busy)
			return 0;
	}
	if (!fl_filter()) {
		fl_count(FL_FILTERED);
		return 0;
	}
	if (walk)
		walk->busy = 1;
	if (fl_config.majors || fl_config.hook == FL_HOOK_KPROBE) {
		struct fl_last_fault *last = fl_last_fault_of(fault->tid);

		if (last) {
			last->tid = fault->tid;
			last->error_code = fault->error_code | (fl_config.hook == FL_HOOK_KPROBE ? FL_IS_FAULT : 0);
		}
	}
	if (fl_key_of(&key.key, fault)) {
		count = fl_near_row(&key);
		is_new = count ? !(*count)++ : fl_count_far(&key.key);
		if (is_new)
			fl_name_key(context, fault, &key.key);
		if (fl_config.event_each)
			fl_send_fault(fault, &key.key);
	} else {
		fl_count(FL_LOST_TABLE_FULL);
	}
	if (walk)
		walk->busy = 0;
	return 0;
}

/* The registers of the fault; for its stack the user's registers, if the kernel caused the fault on behalf of its task. */
static __always_inline void fl_take_registers(struct fl_page_fault *fault, const struct pt_regs *regs)
{
	if (fl_config.by == FL_BY_STACK && fault->mode == FL_MODE_KERNEL)
		regs = fl_pt_regs();
	bpf_probe_read_kernel(&fault->ip, sizeof(u64), &fl_regs_ip(regs));
	bpf_probe_read_kernel(&fault->sp, sizeof(u64), &fl_regs_sp(regs));
	bpf_probe_read_kernel(&fault->fp, sizeof(u64), &fl_regs_fp(regs));
}

/* page_fault_*(unsigned long address, struct pt_regs *regs, unsigned long error_code) */
static __always_inline int fl_on_tracepoint(void *context, u64 address, struct pt_regs *regs, u64 error_code, u32 mode)
{
	struct fl_page_fault fault = {.address = address, .error_code = error_code, .mode = mode};

	if (fl_config.by == FL_BY_INSTRUCTION || fl_config.by == FL_BY_STACK || fl_config.event_each)
		fl_take_registers(&fault, regs);
	return fl_on_fault(context, &fault);
}

SEC("raw_tp/page_fault_user")
int BPF_PROG(fl_user, u64 address, struct pt_regs *regs, u64 error_code)
{
	return fl_on_tracepoint(ctx, address, regs, error_code, FL_MODE_USER);
}

SEC("raw_tp/page_fault_kernel")
int BPF_PROG(fl_kernel, u64 address, struct pt_regs *regs, u64 error_code)
{
	return fl_on_tracepoint(ctx, address, regs, error_code, FL_MODE_KERNEL);
}

/* The fault as a perf event's program sees it. */
static __always_inline void fl_take_perf(struct fl_page_fault *fault, struct bpf_perf_event_data *data)
{
	fl_take_task(fault);
	fault->address = data->addr;
	fault->mode = fl_is_user_mode(fl_regs_privilege(&data->regs)) ? FL_MODE_USER : FL_MODE_KERNEL;
	if (fl_config.by == FL_BY_STACK && fault->mode == FL_MODE_KERNEL) {
		fl_take_registers(fault, NULL);
		return;
	}
	fault->ip = fl_regs_ip(&data->regs);
	fault->sp = fl_regs_sp(&data->regs);
	fault->fp = fl_regs_fp(&data->regs);
}

/* A fault that was counted when it began is major. */
static __always_inline void fl_on_major(struct fl_page_fault *fault)
{
	struct fl_fault_key key = {};
	u64 one = 1, *count;

	fl_count(FL_MAJOR);
	if (fl_config.hook != FL_HOOK_PERF) {
		struct fl_last_fault *last = fl_last_fault_of(fault->tid);

		if (!last || last->tid != fault->tid) {
			fl_count(FL_LOST_MAJOR);
			return;
		}
		fault->error_code = last->error_code & ~(FL_WILL_RETRY | FL_IS_FAULT);
	}
	if (!fl_key_of(&key, fault)) {
		fl_count(FL_LOST_MAJOR);
		return;
	}
	count = bpf_map_lookup_elem(&fl_majors, &key);
	if (!count && (s32)bpf_map_update_elem(&fl_majors, &key, &one, BPF_NOEXIST)) {
		/* Another processor was first, or there is no room. */
		count = bpf_map_lookup_elem(&fl_majors, &key);
		if (!count)
			fl_count(FL_LOST_MAJOR);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
}

/* PERF_COUNT_SW_PAGE_FAULTS_MAJ */
SEC("perf_event")
int fl_major(struct bpf_perf_event_data *data)
{
	struct fl_stack_walk *walk = fl_config.by == FL_BY_STACK ? fl_scratch(&fl_stack_walks) : NULL;
	struct fl_page_fault fault = {};

	fl_count(FL_MAJOR_RUNS);
	fl_take_perf(&fault, data);
	if (!(fl_config.modes & (1 << fault.mode)) || !fl_filter())
		return 0;
	if (walk)
		walk->busy = 1;
	fl_on_major(&fault);
	if (walk)
		walk->busy = 0;
	return 0;
}

/* --- the fallbacks, where the tracepoints can't be used --- */

/*
 * handle_mm_fault(struct vm_area_struct *vma, unsigned long address, unsigned int flags, struct pt_regs *regs): faults at addresses
 * where something is mapped. It is called again for a fault that had to wait, and without registers for memory that the kernel wants in
 * place (get_user_pages()).
 */
SEC("kprobe/handle_mm_fault")
int BPF_KPROBE(fl_handle, struct vm_area_struct *vma, u64 address, u64 flags, struct pt_regs *regs)
{
	struct fl_page_fault fault = {.address = address};
	struct fl_last_fault *last;
	u32 tid = bpf_get_current_pid_tgid();
	u64 privilege = 0;

	last = fl_last_fault_of(tid);
	if (last && last->tid == tid) {
		bool is_retry = last->error_code & FL_WILL_RETRY;

		/* What returns next is this call. */
		last->error_code &= ~(FL_WILL_RETRY | FL_IS_FAULT);
		if (regs && (is_retry || flags & FAULT_FLAG_TRIED)) {
			last->error_code |= FL_IS_FAULT;
			return 0;
		}
	}
	if (!regs)
		return 0;
	bpf_probe_read_kernel(&privilege, sizeof(privilege), &fl_regs_privilege(regs));
	fault.mode = fl_is_user_mode(privilege) ? FL_MODE_USER : FL_MODE_KERNEL;
	if (!(fl_config.modes & (1 << fault.mode)))
		return 0;
	if (flags & FAULT_FLAG_INSTRUCTION)
		fault.error_code |= FL_PF_INSTR;
	if (flags & FAULT_FLAG_WRITE)
		fault.error_code |= FL_PF_WRITE;
	fl_take_registers(&fault, regs);
	return fl_on_fault(ctx, &fault);
}

SEC("kretprobe/handle_mm_fault")
int BPF_KRETPROBE(fl_handled, u64 result)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct fl_last_fault *last;

	if (!((u32)result & VM_FAULT_RETRY))
		return 0;
	last = fl_last_fault_of(tid);
	if (last && last->tid == tid && last->error_code & FL_IS_FAULT)
		last->error_code |= FL_WILL_RETRY;
	return 0;
}

/* PERF_COUNT_SW_PAGE_FAULTS: what perf counts as page faults, without the error code. */
SEC("perf_event")
int fl_soft(struct bpf_perf_event_data *data)
{
	struct fl_page_fault fault = {};

	fl_count(FL_SOFT_RUNS);
	fl_take_perf(&fault, data);
	if (!(fl_config.modes & (1 << fault.mode)))
		return 0;
	return fl_on_fault(data, &fault);
}
