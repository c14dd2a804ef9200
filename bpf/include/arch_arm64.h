/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything in bpf/ that depends on the architecture, for arm64. The Rust half is src/arch/aarch64.
 *
 * Sources: arch/arm64/include/asm/{ptrace,processor,esr,thread_info,memory}.h, arch/arm64/include/uapi/asm/{ptrace,sigcontext}.h,
 * arch/arm64/mm/fault.c; Arm Architecture Reference Manual, ESR_EL1; AAPCS64.
 */
#ifndef FL_ARCH_ARM64_H
#define FL_ARCH_ARM64_H

/* The registers by the names that a debugger uses, in the order of struct user_pt_regs, which is also that in which they are shown. */
struct fl_registers {
	u64 x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15;
	u64 x16, x17, x18, x19, x20, x21, x22, x23, x24, x25, x26, x27, x28, x29, x30;
	u64 sp, pc, pstate;
};

#define FL_CODE_BYTES 16 /* four instructions */
#define FL_CALL_BYTES 8  /* two: the call, and the one before it */

/* What user space asks for by the same numbers. */
enum fl_arch {
	/* The exception syndrome of an abort (ESR_EL1): what its bits under a mask are where it was so. */
	FL_PF_PRESENT = 0x0c, /* a permission fault, at whatever level of the tables */
	FL_PF_PRESENT_MASK = 0x3c,
	FL_PF_WRITE = 1 << 6, /* WnR, but for cache maintenance (CM), which counts as a write there */
	FL_PF_WRITE_MASK = 1 << 6 | 1 << 8,
	FL_PF_INSTR = 0x20U << 26, /* exception class: instruction abort from user mode */
	FL_PF_INSTR_MASK = 0x3fU << 26,
	FL_PF_KEY = 1, /* never: the syndrome does not say that a permission overlay has refused */
	FL_PF_KEY_MASK = 0,
	FL_SIGNAL_FRAME_BYTES = 16 << 10, /* a signal's largest frame: 13.2 KiB with vectors of 2048 bits (SVE) */
};

#ifdef __bpf__

/* Bits that no abort's syndrome has: of what comes from a hypervisor alone. */
#define FL_PF_UNUSED_0 (1U << 23)
#define FL_PF_UNUSED_1 (1U << 24)

#define FL_EC_INSTRUCTION_ABORT 0x20 /* from user mode */
#define FL_EC_DATA_ABORT        0x24
#define FL_TRAP_BREAKPOINT      0x3c /* ESR_ELx_EC_BRK64 */
#define FL_USER_SPACE_END       (1ULL << 52)

/* THREAD_SIZE without KASAN. A stack is whole pages. */
#define FL_KERNEL_STACK_BYTES (fl_page_bytes > 16384 ? fl_page_bytes : 16384ULL)

/*
 * No trap is the reason of a signal with SI_KERNEL: arch/arm64/kernel/traps.c, mm/fault.c. Only SIGKILL is sent with it. The compiler must
 * not know that there are none: for arguments that nobody then needs it passes anything, which the verifier refuses.
 */
#define FL_NO_TRAPS                \
	({                         \
		u64 none = 0;      \
		barrier_var(none); \
		none;              \
	})
#define FL_TRAPS_OF_SIGSEGV FL_NO_TRAPS
#define FL_TRAPS_OF_SIGBUS  FL_NO_TRAPS
#define FL_TRAPS_OF_SIGTRAP FL_NO_TRAPS
#define FL_TRAPS_OF_SIGFPE  FL_NO_TRAPS

/* System calls that send a signal: include/uapi/asm-generic/unistd.h. */
#define FL_NR_KILL              129
#define FL_NR_TKILL             130
#define FL_NR_TGKILL            131
#define FL_NR_RT_SIGQUEUEINFO   138
#define FL_NR_RT_TGSIGQUEUEINFO 240
#define FL_NR_PIDFD_SEND_SIGNAL 424

/* Those that write to a cgroup's file. */
#define FL_NR_WRITE    64
#define FL_NR_PWRITE64 68
#define FL_NR_WRITEV   66

/* What user space sees of pt_regs; the beginning of the kernel's. */
struct user_pt_regs {
	unsigned long regs[31];
	unsigned long sp, pc, pstate;
};
typedef struct user_pt_regs bpf_user_pt_regs_t; /* those of a perf event */

/* The beginning of the kernel's, which is longer, and not as long on all kernels. */
struct pt_regs {
	unsigned long regs[31];
	unsigned long sp, pc, pstate;
	unsigned long orig_x0; /* the first argument of a system call, whose result takes its register */
	int syscallno;         /* -1: not in a system call, or the signal at hand has ended it (forget_syscall()) */
	unsigned int pad;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The last fault of the thread. The kernel clears these for some faults only: believe them only beside a signal that they explain. */
struct thread_struct {
	struct {
		unsigned long tp_value;
	} uw;
	unsigned long fault_address;
	unsigned long fault_code; /* the syndrome; 0: the fault has none */
	u64 mte_ctrl;
};

/* arch/arm64/include/asm/thread_info.h */
struct thread_info {
	unsigned long flags;
};
#define FL_TIF_32BIT (1UL << 22)

/* mm_context_t */
struct fl_mm_context {
	void *vdso;
};

#pragma clang attribute pop

/* The counter is the task's own (struct thread_info) and no variable of the processor. */
#define fl_preempt_count_offset() 0

/* System calls that map memory: include/uapi/asm-generic/unistd.h. */
#define FL_NR_MMAP          222
#define FL_NR_MPROTECT      226
#define FL_NR_MUNMAP        215
#define FL_NR_BRK           214
#define FL_NR_MREMAP        216
#define FL_NR_MADVISE       233
#define FL_NR_SHMAT         196
#define FL_NR_EXECVE        221
#define FL_NR_EXIT          93
#define FL_NR_SHMDT         197
#define FL_NR_KILL          129
#define FL_NR_TKILL         130
#define FL_NR_TGKILL        131
#define FL_NR_EXIT_GROUP    94
#define FL_NR_EXIT_GROUP_32 248 /* arch/arm/tools/syscall.tbl */
#define FL_NR_MEMFD_CREATE  279
#define FL_NR_EXECVEAT      281
#define FL_NR_PKEY_MPROTECT 288

/* The mapping calls of 32-bit programs, arch/arm/tools/syscall.tbl: munmap, mprotect, mremap, mmap2, shmat, pkey_mprotect. */
#define FL_IS_COMPAT_MAPPING(nr) ((nr) == 91 || (nr) == 125 || (nr) == 163 || (nr) == 192 || (nr) == 305 || (nr) == 394)

/* Is a system call at its beginning? Its result is in the register of its first argument, so nothing tells begin and end apart. */
#define fl_is_begun(result) ((void)(result), 0)

/* Registers go into the record as they are; only what it has no room for is copied apart. */
typedef struct {
	u64 pstate, orig_x0;
	s32 syscallno;
	u32 pad;
} fl_taken_regs;
#define fl_take_regs(taken, record, from)                                              \
	({                                                                             \
		const struct pt_regs *regs_at = (from);                                \
		fl_copy(&(record)->registers, sizeof((record)->registers), regs_at) || \
			fl_copy(taken, sizeof(*(taken)), &regs_at->pstate);            \
	})
#define fl_keep_regs(record, taken) ((void)0)

/* struct sigcontext, the registers in a signal frame: arch/arm64/include/uapi/asm/sigcontext.h. */
struct fl_signal_frame {
	u64 fault_address;
	u64 regs[31];
	u64 sp, pc, pstate;
	u64 pad;
	u8 fpsimd
		[528]; /* struct fpsimd_context: setup_sigframe_layout() places it first, and struct esr_context next */
	u32 esr_magic;
	u32 esr_bytes;
	u64 esr;
};
#define FL_ESR_MAGIC 0x45535201 /* without a syndrome, another record stands there */

/* The frame's address from that of its `sp`, behind which `pc` stands. */
#define fl_signal_frame_at(sp_at) ((sp_at) - __builtin_offsetof(struct fl_signal_frame, sp))
/* FPSIMD_MAGIC: that record is always there. */
#define fl_is_signal_frame(frame)  (*(const u32 *)(frame)->fpsimd == 0x46508001)
#define fl_frame_error_code(frame) ((frame)->esr_magic == FL_ESR_MAGIC ? (frame)->esr : 0)
#define fl_frame_trap_nr(frame)    fl_exception_class(fl_frame_error_code(frame))
#define fl_frame_address(frame)    fl_untagged((frame)->fault_address)

static inline __attribute__((always_inline)) void fl_registers_of_frame(struct fl_registers *to,
									const struct fl_signal_frame *from)
{
	u64 *words = (u64 *)to;

	_Pragma("unroll") for (u32 i = 0; i < 31; i++) words[i] = from->regs[i];
	to->sp = from->sp;
	to->pc = from->pc;
	to->pstate = from->pstate;
}

/* The three registers that frames are walked from. */
static inline __attribute__((always_inline)) void fl_place_registers(struct fl_registers *to, u64 ip, u64 sp, u64 fp)
{
	to->pc = ip;
	to->sp = sp;
	to->x29 = fp;
}

#define fl_instruction_pointer(r) ((r)->pc)
#define fl_regs_ip(regs_at)       ((regs_at)->pc)
#define fl_regs_sp(regs_at)       ((regs_at)->sp)
#define fl_regs_fp(regs_at)       ((regs_at)->regs[29])
#define fl_stack_pointer(r)       ((r)->sp)
#define fl_frame_pointer(r)       ((r)->x29)
#define fl_call_result(r)         ((s64)(r)->x0)              /* where the thread came by a system call */
#define fl_is_user_mode(pstate)   (((pstate)&0xf) == 0)       /* PSR_MODE_EL0t, also with PSR_MODE32_BIT */
#define fl_is_compat(r)           (((r)->pstate & 0x10) != 0) /* PSR_MODE32_BIT */

/* The part of pt_regs that has instruction and stack pointer, and where it begins. */
struct fl_regs_top {
	u64 sp, ip;
};
#define fl_regs_top(regs_at) ((regs_at)->sp)

/* Is the thread in a system call? Not any more where it gets a signal: do_signal(), arch/arm64/kernel/signal.c, forgets the call before. */
#define fl_is_syscall(regs_at)     ((regs_at)->syscallno != -1)
#define fl_syscall_number(regs_at) ((regs_at)->syscallno)

/* svc, with any immediate: behind it, or at it again where the call is restarted. */
#define fl_is_svc(code) (((code)&0xffe0001f) == 0xd4000001)
#define fl_may_follow_syscall(r)                                                          \
	({                                                                                \
		u32 around[2] = {};                                                       \
		bpf_probe_read_user(around, sizeof(around), (const void *)((r)->pc - 4)); \
		fl_is_svc(around[0]) || fl_is_svc(around[1]);                             \
	})

/* Go's handler has put the return address of the call that it has made up into the link register. */
#define FL_GO_SIGPANIC_BYTES                              512 /* no more than this is sigpanic()'s frame, with what the handler makes room for */
#define fl_is_frame_of_made_up_call(frame, stack_pointer) ((stack_pointer) - (frame) <= FL_GO_SIGPANIC_BYTES)
#define fl_stack_above_made_up_call(frame, stack_pointer) (stack_pointer)

/* As on x86_64: bl, blr. */
#define FL_CALLED_ANY (~0ULL)
static inline __attribute__((always_inline)) u64 fl_called_before(u64 place, u64 code)
{
	u32 word = code >> 32;

	if (word >> 26 == 0x25)
		return place - 4 + ((s64)((u64)word << 38) >> 36);
	return (word & 0xfffffc1f) == 0xd63f0000 ? FL_CALLED_ANY : 0;
}

/* How far below the stack pointer a frame's two words begin at most: those of Go, which has room for them there. */
#define FL_FRAME_BELOW_STACK 8

/* The caller of a function that has pushed nothing yet: in the register of the return address. 0: read. */
#define fl_read_caller(caller, r)     \
	({                            \
		*(caller) = (r)->x30; \
		0;                    \
	})

/* The kernel has its own code for a breakpoint, which is not needed here. */
#define fl_ran_breakpoint(r) ((void)(r), 0)

/* Did abort() of libc come to its last instruction, brk, because SIGABRT has not ended the process? This was not tried. */
#define fl_is_aborts_halt(record) 0

/* seccomp_data.arch: include/uapi/linux/audit.h. `is_compat`: of a call by a 32-bit number. */
#define fl_audit_arch(is_compat) ((is_compat) ? 0x40000028 : 0xc00000b7)

/*
 * The thread's own data, in user space (TPIDR_EL0). The kernel keeps it when the thread makes room for another one: of a thread that has
 * never done so it has the value of its beginning.
 */
#define fl_thread_data(task) fl_read(task, thread.uw.tp_value)

/* Go: where all of its code has the goroutine, and where a program with cgo has it, behind the head of the thread's data. */
#define fl_regs_go(regs_at) ((regs_at)->regs[28])
#define FL_GO_SLOT          16

/* glibc: the data of a thread begin with the address of the table of its modules' variables (dtv_t). */
#define fl_is_thread_head(head, data) ((head)[0] != 0)
#define fl_thread_modules(head)       ((head)[0])
/* Keys of pthread_setspecific() are before them, and where depends on the release of glibc. */
#define FL_THREAD_KEYS_AT 0

/* The processor ignores the highest byte of an address of data, which programs use for tags: untagged_addr(), asm/memory.h. */
static inline __attribute__((always_inline)) u64 fl_untagged(u64 address)
{
	return address >> 55 & 1 ? address : address & ~(0xffULL << 56);
}

/* A return address on the stack may be signed, in the bits that the addresses of the current task leave free. */
#define fl_code_mask() (fl_read(fl_current(), mm, task_size) - 1)

#define fl_exception_class(esr) ((esr) >> 26 & 0x3f)
/* Translation, access flag and permission faults, and a translation fault at level -1. Others: alignment, tag check, damaged memory. */
#define fl_is_fault_status(esr) (((esr)&0x3f) - 4 < 12 || ((esr)&0x3f) == 0x2b)

/*
 * Was the trap a page fault, which can be the reason of this signal? Breakpoints leave the syndrome of the fault before them, whose
 * address may be theirs.
 */
#define fl_is_page_fault(record)                                                                    \
	(((record)->signal == FL_SIGSEGV || (record)->signal == FL_SIGBUS) &&                       \
	 ((record)->trap_nr == FL_EC_DATA_ABORT || (record)->trap_nr == FL_EC_INSTRUCTION_ABORT) && \
	 fl_is_fault_status((record)->error_code))

/* Had the pointer of the access another tag than the memory (MTE), which is no page fault? */
#define fl_is_tag_check(record)                                                 \
	((record)->signal == FL_SIGSEGV && (record)->si_code == SEGV_MTESERR && \
	 (record)->trap_nr == FL_EC_DATA_ABORT && ((record)->error_code & 0x3f) == 0x11)

/* May the processor only note that a tag was wrong? MTE_CTRL_TCF_ASYNC and MTE_CTRL_TCF_ASYMM, asm/processor.h; v5.13 */
#define fl_may_note_tags(task) \
	(!bpf_core_field_exists((task)->thread.mte_ctrl) || fl_own(task, thread.mte_ctrl) & (1UL << 17 | 1UL << 18))

/* What the kernel keeps of the last trap of a task: struct thread_struct. */
#define fl_last_trap_nr(task)      fl_exception_class(fl_own(task, thread.fault_code))
#define fl_last_error_code(task)   fl_own(task, thread.fault_code)
#define fl_last_trap_address(task) fl_untagged(fl_own(task, thread.fault_address))

/* The address of pt_regs on the kernel's stack, for kernels without a helper: its top. */
#define FL_PT_REGS_OFFSET          (FL_KERNEL_STACK_BYTES - bpf_core_type_size(struct pt_regs))
#define fl_is_user_regs(regs_at)   fl_is_user_mode((regs_at)->pstate)
#define fl_regs_privilege(regs_at) ((regs_at)->pstate) /* for fl_is_user_mode() */

/* Is the task in a system call by a 32-bit number? A 32-bit program has no other. */
#define fl_is_compat_call(task) (fl_read(task, thread_info.flags) & FL_TIF_32BIT)

/* A system call's number, result and arguments, counted from 0, in struct pt_regs. */
#define fl_regs_call(regs_at)   ((regs_at)->syscallno)
#define fl_regs_result(regs_at) ((regs_at)->regs[0])
#define fl_regs_0(regs_at)      ((regs_at)->orig_x0)
#define fl_regs_1(regs_at)      ((regs_at)->regs[1])
#define fl_regs_2(regs_at)      ((regs_at)->regs[2])
#define fl_regs_3(regs_at)      ((regs_at)->regs[3])
#define fl_regs_4(regs_at)      ((regs_at)->regs[4])
#define fl_regs_5(regs_at)      ((regs_at)->regs[5])

/* The arguments of a function of the kernel, of the struct pt_regs that a kprobe is given. */
#define fl_function_arguments(at)                                                                        \
	{                                                                                                \
		(at)->regs[0], (at)->regs[1], (at)->regs[2], (at)->regs[3], (at)->regs[4], (at)->regs[5] \
	}

/* The arguments of a system call, from one copy of the registers that hold them. At its beginning, before there is a result. */
struct fl_call_regs {
	u64 arguments[6];
};
#define fl_call_regs_of(at)         ((const struct pt_regs *)(at))
#define fl_call_arguments(to, from) ({ _Pragma("unroll") for (u32 i = 0; i < 6; i++)(to)[i] = (from)->arguments[i]; })

/* What a return has taken, and a call has left: on this architecture both are in the register of the return address. 0: read. */
#define fl_read_around_top(words, r)                \
	({                                          \
		(words)[0] = (words)[1] = (r)->x30; \
		0;                                  \
	})

#define FL_LOAD_BYTES 8 /* that fl_loaded_address() looks at, at most */

/*
 * The address that the two instructions `code`, which lie at `at`, put into the register of a function's result: adrp x0, page;
 * add x0, x0, offset. 0: they are others.
 */
static inline __attribute__((always_inline)) u64 fl_loaded_address(const u8 *code, u64 at)
{
	u32 page = code[0] | code[1] << 8 | code[2] << 16 | (u32)code[3] << 24;
	u32 offset = code[4] | code[5] << 8 | code[6] << 16 | (u32)code[7] << 24;
	s64 pages = (page >> 5 & 0x7ffff) << 2 | (page >> 29 & 3);

	if (at & 3 || (page & 0x9f00001f) != 0x90000000 || (offset & 0xffc003ff) != 0x91000000)
		return 0;
	return (at & ~0xfffULL) + (pages << 43 >> 31) + (offset >> 10 & 0xfff);
}

/* The operand in memory of a call: no call of this architecture has one. */
#define fl_operand_of_call(from, code, length, end) (0ULL)

#endif
#endif
