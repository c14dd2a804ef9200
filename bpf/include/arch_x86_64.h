/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything in bpf/ that depends on the architecture, for x86_64. Another architecture is another file like this one, included by
 * arch.h. The Rust half is src/arch.
 *
 * Sources: arch/x86/include/asm/{ptrace,processor,trap_pf,page_types}.h, System V ABI for AMD64 3.2.
 */
#ifndef FL_ARCH_X86_64_H
#define FL_ARCH_X86_64_H

/* The registers by the names that a debugger uses, in the order in which they are shown. */
struct fl_registers {
	u64 rip, rsp, rbp, rax, rbx, rcx, rdx, rsi, rdi;
	u64 r8, r9, r10, r11, r12, r13, r14, r15;
	u64 eflags, cs, ss;
};

#define FL_CODE_BYTES 16 /* the longest instruction has 15 */
#define FL_CALL_BYTES 8  /* the longest call, with a prefix */

/* What user space asks for by the same numbers. */
enum fl_arch {
	/* A page fault's error code, enum x86_pf_error_code: what its bits under a mask are where it was so. */
	FL_PF_PRESENT = 1 << 0,
	FL_PF_PRESENT_MASK = FL_PF_PRESENT,
	FL_PF_WRITE = 1 << 1,
	FL_PF_WRITE_MASK = FL_PF_WRITE,
	FL_PF_INSTR = 1 << 4,
	FL_PF_INSTR_MASK = FL_PF_INSTR,
	FL_PF_KEY = 1 << 5,
	FL_PF_KEY_MASK = FL_PF_KEY,
	FL_SIGNAL_FRAME_BYTES =
		12 << 10, /* a signal's largest frame: the red zone and the registers, 11 KiB with AMX */
};

#ifdef __bpf__

/* Bits that no page fault's code has. */
#define FL_PF_UNUSED_0 (1U << 30)
#define FL_PF_UNUSED_1 (1U << 31)

#define FL_TRAP_BREAKPOINT    3  /* X86_TRAP_BP */
#define FL_TRAP_PAGE_FAULT    14 /* X86_TRAP_PF */
#define FL_USER_SPACE_END     (1ULL << 47)
#define FL_USER_CS            0x33  /* __USER_CS: 64-bit code; 0x23 is __USER32_CS */
#define FL_USER_DS            0x2b  /* __USER_DS */
#define FL_KERNEL_STACK_BYTES 16384 /* THREAD_SIZE: 4 pages on every x86_64 kernel without KASAN */

/*
 * The traps for which the kernel sends a signal with SI_KERNEL and no address: arch/x86/kernel/traps.c. SIGSEGV: overflow, bounds,
 * invalid TSS, general protection, virtualization exception; SIGBUS: segment not present, stack segment, VMM communication;
 * SIGTRAP: breakpoint; SIGFPE: coprocessor segment overrun.
 */
#define FL_TRAPS_OF_SIGSEGV (1ULL << 4 | 1ULL << 5 | 1ULL << 10 | 1ULL << 13 | 1ULL << 20)
#define FL_TRAPS_OF_SIGBUS  (1ULL << 11 | 1ULL << 12 | 1ULL << 29)
#define FL_TRAPS_OF_SIGTRAP (1ULL << FL_TRAP_BREAKPOINT)
#define FL_TRAPS_OF_SIGFPE  (1ULL << 9)

/* System calls that send a signal: arch/x86/entry/syscalls/syscall_64.tbl. */
#define FL_NR_KILL              62
#define FL_NR_TKILL             200
#define FL_NR_TGKILL            234
#define FL_NR_RT_SIGQUEUEINFO   129
#define FL_NR_RT_TGSIGQUEUEINFO 297
#define FL_NR_PIDFD_SEND_SIGNAL 424

/* Those that write to a cgroup's file. */
#define FL_NR_WRITE    1
#define FL_NR_PWRITE64 18
#define FL_NR_WRITEV   20

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
typedef struct pt_regs bpf_user_pt_regs_t; /* those of a perf event */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The last fault of the thread. The kernel never clears these: believe them only beside a signal that they explain. */
struct thread_struct {
	unsigned long cr2;
	unsigned long trap_nr;
	unsigned long error_code;
	unsigned long fsbase; /* of the thread's own data */
};

/* arch/x86/include/asm/thread_info.h */
struct thread_info {
	u32 status;
};
#define FL_TS_COMPAT 2 /* TS_COMPAT: in a system call by a 32-bit number */

/* The state of each processor; kernels without this struct have a variable __preempt_count. */
struct pcpu_hot { /* v6.2 to v6.14 */
	int preempt_count;
};
#define fl_preempt_count_offset() \
	(bpf_core_type_exists(struct pcpu_hot) ? bpf_core_field_offset(struct pcpu_hot, preempt_count) : 0)

/* mm_context_t */
struct fl_mm_context {
	void *vdso;
};

#pragma clang attribute pop

/* System calls that map memory: arch/x86/entry/syscalls/syscall_64.tbl. */
#define FL_NR_MMAP          9
#define FL_NR_MPROTECT      10
#define FL_NR_MUNMAP        11
#define FL_NR_BRK           12
#define FL_NR_MREMAP        25
#define FL_NR_MADVISE       28
#define FL_NR_SHMAT         30
#define FL_NR_EXECVE        59
#define FL_NR_EXIT          60
#define FL_NR_SHMDT         67
#define FL_NR_KILL          62
#define FL_NR_TKILL         200
#define FL_NR_TGKILL        234
#define FL_NR_EXIT_GROUP    231
#define FL_NR_EXIT_GROUP_32 252 /* syscall_32.tbl */
#define FL_NR_MEMFD_CREATE  319
#define FL_NR_EXECVEAT      322
#define FL_NR_PKEY_MPROTECT 329

/* The mapping calls of 32-bit programs, syscall_32.tbl: mmap, munmap, mprotect, mremap, mmap2, pkey_mprotect, shmat. */
#define FL_IS_COMPAT_MAPPING(nr) \
	((nr) == 90 || (nr) == 91 || (nr) == 125 || (nr) == 163 || (nr) == 192 || (nr) == 380 || (nr) == 397)

/* Is a system call at its beginning? Its result, before it has one, is -ENOSYS: entry_SYSCALL_64(). */
#define FL_NO_RESULT        (-38LL)
#define fl_is_begun(result) ((result) == FL_NO_RESULT)

/* The registers from struct pt_regs or a signal frame: both use the kernel's names. */
#define fl_copy_registers(to, from)           \
	({                                    \
		(to)->rip = (from)->ip;       \
		(to)->rsp = (from)->sp;       \
		(to)->rbp = (from)->bp;       \
		(to)->rax = (from)->ax;       \
		(to)->rbx = (from)->bx;       \
		(to)->rcx = (from)->cx;       \
		(to)->rdx = (from)->dx;       \
		(to)->rsi = (from)->si;       \
		(to)->rdi = (from)->di;       \
		(to)->r8 = (from)->r8;        \
		(to)->r9 = (from)->r9;        \
		(to)->r10 = (from)->r10;      \
		(to)->r11 = (from)->r11;      \
		(to)->r12 = (from)->r12;      \
		(to)->r13 = (from)->r13;      \
		(to)->r14 = (from)->r14;      \
		(to)->r15 = (from)->r15;      \
		(to)->eflags = (from)->flags; \
	})

static inline __attribute__((always_inline)) void fl_registers_from(struct fl_registers *to, const struct pt_regs *from)
{
	fl_copy_registers(to, from);
	to->cs = from->cs;
	to->ss = from->ss;
}

/* What fl_add_registers() copies of struct pt_regs: all of it. Its registers go from there into the record. */
typedef struct pt_regs fl_taken_regs;
#define fl_take_regs(taken, record, from) fl_copy(taken, sizeof(*(taken)), from)
#define fl_keep_regs(record, taken)       fl_registers_from(&(record)->registers, taken)

/* struct sigcontext, the registers in a signal frame: arch/x86/include/uapi/asm/sigcontext.h. */
struct fl_signal_frame {
	u64 r8, r9, r10, r11, r12, r13, r14, r15;
	u64 di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	u64 segments;
	u64 err, trapno, oldmask, cr2;
};

/* The frame's address from that of its `sp`, behind which `ip` stands. */
#define fl_signal_frame_at(sp_at) ((sp_at) - __builtin_offsetof(struct fl_signal_frame, sp))
/* The code segment of 64 bits, __USER_CS, is among the segments. */
#define fl_is_signal_frame(frame)  (((frame)->segments & 0xffff) == 0x33)
#define fl_frame_trap_nr(frame)    ((frame)->trapno)
#define fl_frame_error_code(frame) ((frame)->err)
#define fl_frame_address(frame)    ((frame)->cr2)

static inline __attribute__((always_inline)) void fl_registers_of_frame(struct fl_registers *to,
									const struct fl_signal_frame *from)
{
	fl_copy_registers(to, from);
}

/* The three registers that frames are walked from. */
static inline __attribute__((always_inline)) void fl_place_registers(struct fl_registers *to, u64 ip, u64 sp, u64 fp)
{
	to->rip = ip;
	to->rsp = sp;
	to->rbp = fp;
}

#define fl_instruction_pointer(r) ((r)->rip)
#define fl_regs_ip(regs)          ((regs)->ip)
#define fl_regs_sp(regs)          ((regs)->sp)
#define fl_regs_fp(regs)          ((regs)->bp)
#define fl_stack_pointer(r)       ((r)->rsp)
#define fl_frame_pointer(r)       ((r)->rbp)
#define fl_call_result(r)         ((s64)(r)->rax) /* where the thread came by a system call */
#define fl_is_user_mode(cs)       (((cs)&3) == 3)
#define fl_is_compat(r)           ((r)->cs != FL_USER_CS)

/* The part of pt_regs that has instruction and stack pointer, and where it begins. */
struct fl_regs_top {
	u64 ip, cs, flags, sp;
};
#define fl_regs_top(regs) ((regs)->ip)

/*
 * Did the thread enter the kernel by a system call? After a trap or an interrupt this is -1 (idtentry_body in
 * arch/x86/entry/entry_64.S since v5.8, arch/x86/entry/entry_fred.c), and also after rt_sigreturn(2).
 */
#define fl_is_syscall(regs)     ((s64)(regs)->orig_ax != -1)
#define fl_syscall_number(regs) ((s32)(regs)->orig_ax)

/* The instruction `syscall` leaves the address behind it in rcx; a call that is restarted has gone back to the instruction. */
#define fl_may_follow_syscall(r) ((r)->rcx == (r)->rip || (r)->rcx == (r)->rip + 2)

/* Go's handler has pushed a return address for a call at this stack pointer, and that function the frame pointer below it. */
#define fl_is_frame_of_made_up_call(frame, stack_pointer) ((frame) == (stack_pointer)-2 * sizeof(u64))
#define fl_stack_above_made_up_call(frame, stack_pointer) ((frame) + 2 * sizeof(u64))

/*
 * The function that a call which ends at `place` has called; 0: no call ends there; FL_CALLED_ANY: it went through a pointer. `code`: the bytes
 * before `place`. Instructions can't be read backwards: what only looks like a call through a pointer is taken for one.
 */
#define FL_CALLED_ANY            (~0ULL)
#define fl_byte_before(code, at) ((u8)((code) >> (64 - 8 * (at))))
static inline __attribute__((always_inline)) u64 fl_called_before(u64 place, u64 code)
{
	if (fl_byte_before(code, 5) == 0xe8)
		return place + (s64)(s32)(code >> 32);
	/* ff /2: the operand is a register or has no displacement, one of a byte, of four; with a SIB byte before it. */
	if ((fl_byte_before(code, 2) == 0xff && (fl_byte_before(code, 1) & 0x38) == 0x10) ||
	    (fl_byte_before(code, 3) == 0xff &&
	     ((fl_byte_before(code, 2) & 0xf8) == 0x50 || fl_byte_before(code, 2) == 0x14)) ||
	    (fl_byte_before(code, 4) == 0xff && fl_byte_before(code, 3) == 0x54) ||
	    (fl_byte_before(code, 6) == 0xff &&
	     ((fl_byte_before(code, 5) & 0xf8) == 0x90 || fl_byte_before(code, 5) == 0x15)) ||
	    (fl_byte_before(code, 7) == 0xff && fl_byte_before(code, 6) == 0x94))
		return FL_CALLED_ANY;
	return 0;
}

/* Below the stack pointer no frame begins. */
#define FL_FRAME_BELOW_STACK 0

/* The caller of a function that has pushed nothing yet: the return address is on top of the stack. 0: read. */
#define fl_read_caller(caller, r) bpf_probe_read_user(caller, sizeof(*(caller)), (const void *)(r)->rsp)

/* Was the instruction before this one a breakpoint? int3 is 0xcc, or int with the number 3. */
#define fl_ran_breakpoint(r)                                                          \
	({                                                                            \
		u8 before = 0;                                                        \
		bpf_probe_read_user(&before, sizeof(before), (void *)((r)->rip - 1)); \
		before == 0xcc || before == FL_TRAP_BREAKPOINT;                       \
	})

/* Did abort() of libc come to its last instruction, hlt, because SIGABRT has not ended the process? Or another function, with the same one. */
#define fl_is_aborts_halt(record)                                                                     \
	((record)->signal == FL_SIGSEGV && (record)->si_code == SI_KERNEL && (record)->code_length && \
	 (record)->code[0] == 0xf4)

/* seccomp_data.arch: include/uapi/linux/audit.h. `is_compat`: of a call by a 32-bit number. */
#define fl_audit_arch(is_compat) ((is_compat) ? 0x40000003 : 0xc000003e)

/* The thread's own data, in user space. Up to date for the current task, unless it sets it without a system call (wrfsbase). */
#define fl_thread_data(task) fl_read(task, thread.fsbase)

/* Go: where its assembly has the goroutine (ABIInternal), and where a program without cgo has it, below the thread's data. */
#define fl_regs_go(regs) ((regs)->r14)
#define FL_GO_SLOT       (-8)

/* glibc: the data of a thread begin with their own address and that of the table of its modules' variables (dtv_t). */
#define fl_is_thread_head(head, data) ((head)[0] == (data))
#define fl_thread_modules(head)       ((head)[1])
/* glibc: where struct pthread has the first keys of pthread_setspecific() with what they lead to (specific_1stblock, nptl/descr.h). */
#define FL_THREAD_KEYS_AT 0x310

/* An address of data without the bits that the processor ignores; the bits of a return address that are its own, and sign nothing. */
#define fl_untagged(address) (address)
#define fl_code_mask()       (~0ULL)

/* Was the trap a page fault, which can be the reason of this signal? */
#define fl_is_page_fault(record) ((record)->trap_nr == FL_TRAP_PAGE_FAULT)

/* Memory has no tags. */
#define fl_is_tag_check(record) 0
#define fl_may_note_tags(task)  ((void)(task), 0)

/* What the kernel keeps of the last trap of a task: struct thread_struct. */
#define fl_last_trap_nr(task)      fl_own(task, thread.trap_nr)
#define fl_last_error_code(task)   fl_own(task, thread.error_code)
#define fl_last_trap_address(task) fl_own(task, thread.cr2)

/* The address of pt_regs on the kernel's stack, for kernels without a helper: its top. */
#define FL_PT_REGS_OFFSET       (FL_KERNEL_STACK_BYTES - sizeof(struct pt_regs))
#define fl_is_user_regs(regs)   ((regs)->ss == FL_USER_DS)
#define fl_regs_privilege(regs) ((regs)->cs) /* for fl_is_user_mode() */

/* Is the task in a system call by a 32-bit number? */
#define fl_is_compat_call(task) (fl_read(task, thread_info.status) & FL_TS_COMPAT)

/* A system call's number, result and arguments, counted from 0, in struct pt_regs. */
#define fl_regs_call(regs)   ((regs)->orig_ax)
#define fl_regs_result(regs) ((regs)->ax)
#define fl_regs_0(regs)      ((regs)->di)
#define fl_regs_1(regs)      ((regs)->si)
#define fl_regs_2(regs)      ((regs)->dx)
#define fl_regs_3(regs)      ((regs)->r10)
#define fl_regs_4(regs)      ((regs)->r8)
#define fl_regs_5(regs)      ((regs)->r9)

/* The arguments of a function of the kernel, of the struct pt_regs that a kprobe is given. */
#define fl_function_arguments(regs)                                                    \
	{                                                                              \
		(regs)->di, (regs)->si, (regs)->dx, (regs)->cx, (regs)->r8, (regs)->r9 \
	}

/* The arguments of a system call, from one copy of the registers that hold them. */
struct fl_call_regs {
	u64 r10, r9, r8, ax, cx, dx, si, di;
};
#define fl_call_regs_of(regs) (&((const struct pt_regs *)(regs))->r10)
#define fl_call_arguments(to, from)    \
	({                             \
		(to)[0] = (from)->di;  \
		(to)[1] = (from)->si;  \
		(to)[2] = (from)->dx;  \
		(to)[3] = (from)->r10; \
		(to)[4] = (from)->r8;  \
		(to)[5] = (from)->r9;  \
	})

/* What lies below the stack pointer, which a return has just taken, and on top of the stack. 0: read. */
#define fl_read_around_top(words, r) bpf_probe_read_user(words, 2 * sizeof(u64), (const void *)((r)->rsp - sizeof(u64)))

/* Places in struct fl_registers, as words, of the registers by the numbers that instructions have for them: rax, rcx, rdx, rbx, ... */
#define FL_REGISTER_PLACES 0x87214653

static inline __attribute__((always_inline)) u64 fl_numbered(const struct fl_registers *from, u32 number)
{
	u32 place = number < 8 ? FL_REGISTER_PLACES >> number * 4 & 0xf : number + 1;

	asm volatile("" : "+r"(place)); /* or old verifiers see another copy than the one that is checked */
	if (place >= sizeof(*from) / sizeof(u64))
		return 0;
	return ((const u64 *)from)[place];
}

#define FL_LOAD_BYTES 8 /* that fl_loaded_address() looks at, at most */

/*
 * The address that the instruction `code`, which lies at `at`, puts into the register of a function's result: lea rax, [rip + distance], or
 * mov eax, address. 0: it is another instruction.
 */
static inline __attribute__((always_inline)) u64 fl_loaded_address(const u8 *code, u64 at)
{
	if (code[0] == 0x48 && code[1] == 0x8d && code[2] == 0x05)
		return at + 7 + (s64)(s32)(code[3] | code[4] << 8 | code[5] << 16 | (u32)code[6] << 24);
	if (code[0] == 0xb8)
		return code[1] | code[2] << 8 | code[3] << 16 | (u32)code[4] << 24;
	return 0;
}

/*
 * The operand in memory of the indirect call (ff /2) of `length` bytes that ends at the end of `code`, before which the address `end`
 * lies, and whose callee has pushed nothing: the registers are still those of the call, but for the stack pointer. 0: there is no such call.
 */
static inline __attribute__((always_inline)) u64 fl_operand_of_call(const struct fl_registers *from, const u8 *code,
								    u32 length, u64 end)
{
	u32 at = FL_CALL_BYTES - length, operand, mode, base, sib = 0, bytes = 2, displaced = 0;
	u32 prefix = at > 0 && (code[at - 1] & 0xf0) == 0x40 ? code[at - 1] : 0;
	s64 displacement = 0;
	u64 address = 0;

	operand = code[at + 1];
	mode = operand >> 6;
	base = operand & 7;
	if (code[at] != 0xff || (operand >> 3 & 7) != 2 || mode == 3)
		return 0;
	if (base == 4) {
		if (length < 3)
			return 0;
		sib = code[at + 2];
		bytes += 1;
	}
	if (mode == 1)
		displaced = 1;
	else if (mode == 2 || (!mode && (base == 5 || (base == 4 && (sib & 7) == 5))))
		displaced = 4;
	if (bytes + displaced != length)
		return 0;
	if (displaced == 1)
		displacement = (s8)code[FL_CALL_BYTES - 1];
	else if (displaced == 4)
		displacement = (s32)(code[4] | code[5] << 8 | code[6] << 16 | (u32)code[7] << 24);
	if (base == 4) {
		u32 index = (sib >> 3 & 7) | (prefix & 2) << 2;

		if (index != 4)
			address += fl_numbered(from, index) << (sib >> 6);
		base = sib & 7;
		if (mode || base != 5)
			address += fl_numbered(from, base | (prefix & 1) << 3);
	} else if (!mode && base == 5) {
		address += end;
	} else {
		address += fl_numbered(from, base | (prefix & 1) << 3);
	}
	/* The call itself has pushed the return address since. */
	if (base == 4 && !(prefix & 1))
		address += sizeof(u64);
	return address + displacement;
}

#endif
#endif
