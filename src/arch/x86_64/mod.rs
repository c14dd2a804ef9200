//! x86-64: the registers, traps and page faults. The kernel half is `bpf/include/arch_x86_64.h`.

pub mod syscall;
pub mod unwind;

use crate::hex::Hex;

/// The registers of a thread. All 0 where nothing is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have the processor's own names")]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub eflags: u64,
    pub cs: u64,
    pub ss: u64,
}

/// What an ELF file of this architecture says in e_machine.
pub const ELF_MACHINE: u16 = object::elf::EM_X86_64;

/// The registers by name, in the order in which a debugger shows them.
pub fn registers(from: &Registers) -> Vec<(&'static str, Hex)> {
    vec![
        ("rip", Hex(from.rip)),
        ("rsp", Hex(from.rsp)),
        ("rbp", Hex(from.rbp)),
        ("rax", Hex(from.rax)),
        ("rbx", Hex(from.rbx)),
        ("rcx", Hex(from.rcx)),
        ("rdx", Hex(from.rdx)),
        ("rsi", Hex(from.rsi)),
        ("rdi", Hex(from.rdi)),
        ("r8", Hex(from.r8)),
        ("r9", Hex(from.r9)),
        ("r10", Hex(from.r10)),
        ("r11", Hex(from.r11)),
        ("r12", Hex(from.r12)),
        ("r13", Hex(from.r13)),
        ("r14", Hex(from.r14)),
        ("r15", Hex(from.r15)),
        ("eflags", Hex(from.eflags)),
        ("cs", Hex(from.cs)),
        ("ss", Hex(from.ss)),
    ]
}

/// The instruction pointer among the registers.
pub fn instruction_pointer(from: &Registers) -> u64 {
    from.rip
}

/// The stack pointer among the registers.
pub fn stack_pointer(from: &Registers) -> u64 {
    from.rsp
}

/// The trap number of a general protection fault: a SIGSEGV whose address the processor does not tell.
pub const TRAP_GENERAL_PROTECTION: u64 = 13;

/// The trap number of a breakpoint instruction.
pub const TRAP_BREAKPOINT: u64 = 3;

/// The bits of a page fault's error code that decide something, as [`PAGE_FAULT_BITS`] has them.
pub const PAGE_FAULT_PRESENT: u64 = 1 << 0;
/// See [`PAGE_FAULT_PRESENT`].
pub const PAGE_FAULT_WRITE: u64 = 1 << 1;
/// See [`PAGE_FAULT_PRESENT`].
pub const PAGE_FAULT_INSTRUCTION: u64 = 1 << 4;
/// See [`PAGE_FAULT_PRESENT`].
pub const PAGE_FAULT_PROTECTION_KEY: u64 = 1 << 5;

/// The bits of a page fault's error code by name, lowest first.
///
/// Source: `enum x86_pf_error_code`, arch/x86/include/asm/trap_pf.h.
pub const PAGE_FAULT_BITS: [(u32, &str); 8] = [
    (0, "protection"),
    (1, "write"),
    (2, "user"),
    (3, "reserved"),
    (4, "instruction"),
    (5, "protection_key"),
    (6, "shadow_stack"),
    (15, "sgx"),
];
