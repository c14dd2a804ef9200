//! x86-64: the registers, traps and page faults. The kernel half is `bpf/include/arch_x86_64.h`.

pub mod syscall;
pub mod unwind;

use crate::hex::Hex;
use crate::probe::abi::fl_registers;

/// What an ELF file of this architecture says in e_machine.
pub const ELF_MACHINE: u16 = object::elf::EM_X86_64;

/// The registers by name, in the order in which a debugger shows them.
pub fn registers(from: &fl_registers) -> Vec<(&'static str, Hex)> {
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
pub fn instruction_pointer(from: &fl_registers) -> u64 {
    from.rip
}

/// The stack pointer among the registers.
pub fn stack_pointer(from: &fl_registers) -> u64 {
    from.rsp
}

/// The trap number of a general protection fault: a SIGSEGV whose address the processor does not tell.
pub const TRAP_GENERAL_PROTECTION: u64 = 13;

/// The trap number of a breakpoint instruction.
pub const TRAP_BREAKPOINT: u64 = 3;

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
