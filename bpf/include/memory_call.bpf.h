/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a system call that maps memory does: at its beginning what it is about to remove, at its end what has become of the
 * memory that it is about.
 */
#ifndef FL_MEMORY_CALL_BPF_H
#define FL_MEMORY_CALL_BPF_H

#include "memory_watch.bpf.h"
#include "pages.bpf.h"
#include "pt_regs.bpf.h"

/* include/uapi/asm-generic/mman-common.h, mman.h, include/uapi/linux/{shm,personality}.h */
#define PROT_READ           0x1
#define PROT_WRITE          0x2
#define PROT_EXEC           0x4
#define MAP_FIXED           0x10
#define MAP_ANONYMOUS       0x20
#define SHM_EXEC            0100000
#define READ_IMPLIES_EXEC   0x0400000
#define FL_IS_ERROR(result) ((u64)(result) >= (u64)-FL_LIMIT_ERRNO)

/* Calls that have begun to take executable memory away, by tid: their end gets a record. Full: it gets none. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FL_CALLS_MAX);
	__type(key, u32);
	__type(value, u64); /* vm_flags of the first executable mapping */
} fl_calls SEC(".maps");

/* For --watch-all. Written here; user space reads it and never deletes. Full: counted without a name. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FL_EXEC_MEMS_MAX);
	__type(key, struct fl_exec_mem_key);
	__type(value, struct fl_exec_mem);
} fl_exec_mems SEC(".maps");

/* What the current task asked for. */
struct fl_request {
	u64 arguments[FL_ARGUMENTS];
	u64 address; /* the range that it is about */
	u64 length;
	s64 result;
	enum fl_call call;
	u32 known;      /* taken away executable memory: fl_calls */
	u32 executable; /* asked for executable memory */
	u32 writable;
};

static __always_inline u64 fl_round_up(u64 length)
{
	return fl_page_of(length + fl_page_bytes - 1);
}

static __always_inline void fl_ask(struct fl_request *asked, const struct pt_regs *regs)
{
	asked->arguments[0] = fl_register(fl_regs_0(regs));
	asked->arguments[1] = fl_register(fl_regs_1(regs));
	asked->arguments[2] = fl_register(fl_regs_2(regs));
	asked->arguments[3] = fl_register(fl_regs_3(regs));
	asked->arguments[4] = fl_register(fl_regs_4(regs));
	asked->arguments[5] = fl_register(fl_regs_5(regs));
}

/* Does memory with these PROT_* become executable? */
static __always_inline bool fl_is_executable(struct task_struct *task, u64 protection)
{
	if (protection & PROT_EXEC)
		return true;
	return protection & PROT_READ && fl_own(task, personality) & READ_IMPLIES_EXEC;
}

/* --- the beginning of a call: memory that it is about to take away --- */

/* Looks for executable memory in the range. If there is some, remembers the call, and sends pages that may have changed. */
static __always_inline void fl_before(struct task_struct *task, enum fl_call call, u64 address, u64 end)
{
	struct fl_process *process;
	struct fl_look *look;
	u32 tid = (u32)bpf_get_current_pid_tgid();
	u32 flags;
	u64 found = 1;

	if (!fl_may_have_code())
		return;
	process = fl_watched();
	if (!process)
		return;
	flags = process->flags;
	if (!(flags & (FL_PROCESS_HAS_CODE | FL_PROCESS_VOLATILE)))
		return;
	look = fl_begin_look();
	if (!look)
		return;
	look->mm = (u64)fl_read(task, mm);
	look->timestamp_ns = bpf_ktime_get_boot_ns();
	look->call = call;
	look->flags = FL_IS_LOOK;
	look->address = address;
	look->end = end;
	look->found = 0;
	/* Pages are read again only if they may have changed; a mapping that can't change is only noted. */
	look->volatile_only = 1;
	if (flags & FL_PROCESS_VOLATILE)
		fl_look_around();
	if (call == FL_CALL_EXEC || call == FL_CALL_EXIT) {
		if (call == FL_CALL_EXIT) /* each of its threads gets here */
			process->flags = flags & ~FL_PROCESS_VOLATILE;
	} else {
		struct vm_area_struct *vma = fl_vma_at(look->mm, address);

		if (look->found || (vma && fl_read(vma, vm_flags) & VM_EXEC)) {
			if (bpf_map_update_elem(&fl_calls, &tid, &found, BPF_ANY))
				fl_count(FL_LOST_CALL_FULL);
		}
	}
	fl_end_look(look);
}

static __always_inline void fl_on_enter(struct task_struct *task, const struct pt_regs *regs, u32 number)
{
	u64 address, length;
	enum fl_call call;

	switch (number) {
	case FL_NR_MMAP:
		if (!(fl_register(fl_regs_3(regs)) & MAP_FIXED))
			return;
		call = FL_CALL_MMAP;
		break;
	case FL_NR_MUNMAP:
		call = FL_CALL_MUNMAP;
		break;
	case FL_NR_MREMAP:
		call = FL_CALL_MREMAP;
		break;
	case FL_NR_MADVISE: {
		u64 advice = fl_register(fl_regs_2(regs));

		/* MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTNEED_LOCKED: include/uapi/asm-generic/mman-common.h */
		if (advice != 4 && advice != 8 && advice != 9 && advice != 24)
			return;
		call = FL_CALL_MADVISE;
		break;
	}
	case FL_NR_SHMDT:
		call = FL_CALL_SHMDT;
		break;
	case FL_NR_EXECVE:
	case FL_NR_EXECVEAT:
		fl_before(task, FL_CALL_EXEC, 0, ~0ULL);
		return;
	case FL_NR_EXIT:
		if (fl_read(task, signal, live.counter) > 1)
			return;
		fl_before(task, FL_CALL_EXIT, 0, ~0ULL);
		return;
	case FL_NR_EXIT_GROUP:
		fl_before(task, FL_CALL_EXIT, 0, ~0ULL);
		return;
	default:
		return;
	}
	address = fl_register(fl_regs_0(regs));
	length = call == FL_CALL_SHMDT ? 1 : fl_round_up(fl_register(fl_regs_1(regs)));
	fl_before(task, call, address, address + length);
}

/* --- the end of a call --- */

/* Adds one to a row of fl_exec_mems, possibly on several processors at once. Global: its key and row take room on a stack of their own. */
__noinline int fl_exec_mem_add(u64 address, u64 length, u32 call, u32 writable)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = fl_read(task, group_leader);
	struct fl_exec_mem_key key = {};
	struct fl_exec_mem *row, first = {};
	u64 now = bpf_ktime_get_boot_ns();

	fl_count(FL_EXEC_MEMS);
	key.pid = bpf_get_current_pid_tgid() >> 32;
	key.start_boottime_ns = fl_read(leader, start_boottime);
	key.call = call;
	key.writable = writable;
	row = bpf_map_lookup_elem(&fl_exec_mems, &key);
	if (!row) {
		first.first_ns = now;
		first.uid = (u32)bpf_get_current_uid_gid();
		fl_copy(first.comm, FL_COMM_BYTES, &leader->comm);
		bpf_map_update_elem(&fl_exec_mems, &key, &first, BPF_NOEXIST);
		row = bpf_map_lookup_elem(&fl_exec_mems, &key);
		if (!row) {
			fl_count(FL_LOST_EXEC_MEM_FULL);
			return 1;
		}
	}
	__sync_fetch_and_add(&row->count, 1);
	__sync_fetch_and_add(&row->bytes, length);
	/* Benign race: of two at the same moment, the times and the address of one are kept. */
	row->last_ns = now;
	row->address = address;
	return 0;
}

/* For the whole machine: is the memory that became executable anonymous? */
static __always_inline void fl_exec_mem_after(struct task_struct *task, struct fl_request *asked)
{
	struct vm_area_struct *vma;
	struct fl_look *look;
	bool is_anonymous;

	if (!asked->executable || FL_IS_ERROR(asked->result) || !fl_filter())
		return;
	look = fl_begin_look();
	if (!look)
		return;
	vma = fl_vma_at((u64)fl_read(task, mm), asked->address);
	is_anonymous = vma && !fl_read(vma, vm_file);
	fl_end_look(look);
	if (is_anonymous)
		fl_exec_mem_add(asked->address, asked->length, asked->call, asked->writable);
}

/* Sends the record of a call that has ended, and the pages that it made executable. */
static __always_inline void fl_after(struct task_struct *task, struct fl_request *asked)
{
	struct fl_mapping *record = fl_scratch(&fl_records);
	struct fl_process *process;
	struct vm_area_struct *vma;
	struct fl_look *look;
	u64 end = asked->address + asked->length;
	u64 vm_flags = 0;

	if (!record)
		return;
	process = fl_watched();
	if (!process)
		return;
	look = fl_begin_look();
	if (!look)
		return;
	look->mm = (u64)fl_read(task, mm);
	look->timestamp_ns = bpf_ktime_get_boot_ns();
	look->call = asked->call;
	look->flags = FL_HAS_RESULT;
	vma = asked->length && !FL_IS_ERROR(asked->result) ? fl_vma_at(look->mm, asked->address) : NULL;
	if (vma)
		vm_flags = fl_read(vma, vm_flags);
	/* A mapping moves as it is: only its own flags say whether it is executable. */
	if (asked->call == FL_CALL_MREMAP && !(vm_flags & VM_EXEC) && !asked->known && !fl_config.show_all) {
		fl_end_look(look);
		return;
	}
	fl_begin_record();
	__builtin_memcpy(record->arguments, asked->arguments, sizeof(record->arguments));
	record->result = asked->result;
	record->address = asked->address;
	record->length = asked->length;
	if (vma)
		fl_describe_vma((u64)vma);
	if (vm_flags & VM_EXEC) {
		process->flags |= FL_PROCESS_HAS_CODE;
		*fl_maker(bpf_get_current_pid_tgid() >> 32) = 1;
		/* The part in the next mapping may be anything. */
		if (fl_is_volatile(vma) || fl_read(vma, vm_end) < end)
			process->flags |= FL_PROCESS_VOLATILE;
		if (fl_config.headers && !fl_read(vma, vm_file))
			fl_send_header(asked->address);
		if (fl_config.pages)
			fl_send_pages(asked->address, end, asked->call == FL_CALL_MMAP);
	}
	fl_send_record();
	fl_end_look(look);
}

/* Was the current task's call found to take executable memory away? The entry is deleted. */
static __always_inline bool fl_forget_call(void)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();

	return fl_may_have_code() && bpf_map_lookup_elem(&fl_calls, &tid) && !bpf_map_delete_elem(&fl_calls, &tid);
}

/* What the current task's call has mapped. False: it needs no record. */
static __always_inline bool fl_ask_mmap(struct fl_request *asked, struct task_struct *task, const struct pt_regs *regs)
{
	bool is_fixed = fl_register(fl_regs_3(regs)) & MAP_FIXED;
	u64 protection = fl_register(fl_regs_2(regs));

	asked->executable = fl_is_executable(task, protection);
	if (!asked->executable && !is_fixed && !fl_config.show_all)
		return false;
	asked->known = is_fixed && !fl_config.exec_mem && fl_forget_call();
	if (!asked->executable && !asked->known && !fl_config.show_all)
		return false;
	asked->writable = protection & PROT_WRITE;
	asked->call = FL_CALL_MMAP;
	asked->address = FL_IS_ERROR(asked->result) ? fl_register(fl_regs_0(regs)) : (u64)asked->result;
	asked->length = fl_round_up(fl_register(fl_regs_1(regs)));
	return true;
}

/* The same of a change of protection. */
static __always_inline bool fl_ask_mprotect(struct fl_request *asked, struct task_struct *task,
					    const struct pt_regs *regs, enum fl_call call)
{
	u64 protection = fl_register(fl_regs_2(regs));

	asked->executable = fl_is_executable(task, protection);
	if (!asked->executable && !fl_config.show_all)
		return false;
	asked->writable = protection & PROT_WRITE;
	asked->call = call;
	asked->address = fl_register(fl_regs_0(regs));
	asked->length = fl_round_up(fl_register(fl_regs_1(regs)));
	return true;
}

/* The same of the heap that it has moved the end of. */
static __always_inline bool fl_ask_brk(struct fl_request *asked, struct task_struct *task)
{
	asked->executable = fl_is_executable(task, PROT_READ);
	if (!asked->executable && !fl_config.show_all)
		return false;
	asked->call = FL_CALL_BRK;
	asked->writable = 1;
	asked->address = fl_read(task, mm, start_brk);
	asked->length = fl_round_up((u64)asked->result - asked->address);
	return true;
}

/* The same of shared memory that it has attached. */
static __always_inline bool fl_ask_shmat(struct fl_request *asked, struct task_struct *task, const struct pt_regs *regs)
{
	asked->executable = fl_register(fl_regs_2(regs)) & SHM_EXEC || fl_is_executable(task, PROT_READ);
	if (!asked->executable && !fl_config.show_all)
		return false;
	asked->call = FL_CALL_SHMAT;
	asked->address = FL_IS_ERROR(asked->result) ? fl_register(fl_regs_1(regs)) : (u64)asked->result;
	asked->length = fl_page_bytes;
	return true;
}

/* A call has ended: user space gets what it did to executable memory. */
static __always_inline void fl_on_leave(struct task_struct *task, const struct pt_regs *regs, u32 number, s64 result)
{
	struct fl_request asked = {};
	bool is_wanted = true;

	asked.result = result;
	switch (number) {
	case FL_NR_MMAP:
		is_wanted = fl_ask_mmap(&asked, task, regs);
		break;
	case FL_NR_MPROTECT:
		is_wanted = fl_ask_mprotect(&asked, task, regs, FL_CALL_MPROTECT);
		break;
	case FL_NR_PKEY_MPROTECT:
		is_wanted = fl_ask_mprotect(&asked, task, regs, FL_CALL_PKEY_MPROTECT);
		break;
	case FL_NR_MUNMAP:
		asked.known = fl_forget_call();
		is_wanted = asked.known || fl_config.show_all;
		asked.call = FL_CALL_MUNMAP;
		asked.address = fl_register(fl_regs_0(regs));
		asked.length = fl_round_up(fl_register(fl_regs_1(regs)));
		break;
	case FL_NR_MREMAP:
		asked.known = fl_forget_call();
		asked.call = FL_CALL_MREMAP;
		asked.address = FL_IS_ERROR(result) ? fl_register(fl_regs_0(regs)) : (u64)result;
		asked.length = fl_round_up(fl_register(fl_regs_2(regs)));
		break;
	case FL_NR_BRK:
		is_wanted = fl_ask_brk(&asked, task);
		break;
	case FL_NR_SHMAT:
		is_wanted = fl_ask_shmat(&asked, task, regs);
		break;
	case FL_NR_SHMDT:
		asked.known = fl_forget_call();
		is_wanted = asked.known || fl_config.show_all;
		asked.call = FL_CALL_SHMDT;
		asked.address = fl_register(fl_regs_0(regs));
		break;
	case FL_NR_MADVISE:
		fl_forget_call();
		return;
	case FL_NR_MEMFD_CREATE:
		asked.call = FL_CALL_MEMFD;
		break;
	default:
		return;
	}
	if (!is_wanted)
		return;
	if (fl_config.exec_mem) {
		fl_exec_mem_after(task, &asked);
		return;
	}
	fl_ask(&asked, regs);
	fl_after(task, &asked);
}

#endif
