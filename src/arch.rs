//! What depends on the architecture in user space: the names of the registers.
//!
//! The kernel half is `bpf/include/arch_*.h`; another architecture is one more table here.

use crate::hex::Hex;
use crate::probe::abi::fl_registers;

/// The registers by name, in the order in which a debugger shows them.
#[cfg(target_arch = "x86_64")]
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

/// The registers under DWARF's numbers, rip last: System V ABI for AMD64, figure 3.36.
#[cfg(target_arch = "x86_64")]
pub fn dwarf_registers(from: &fl_registers) -> [u64; 17] {
    let fl_registers { rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, .. } = *from;
    [rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip]
}

/// The instruction pointer among the registers.
#[cfg(target_arch = "x86_64")]
pub fn instruction_pointer(from: &fl_registers) -> u64 {
    from.rip
}

/// The trap number of a general protection fault: a SIGSEGV whose address the processor does not tell.
#[cfg(target_arch = "x86_64")]
pub const TRAP_GENERAL_PROTECTION: u64 = 13;

/// The trap number of a breakpoint instruction.
#[cfg(target_arch = "x86_64")]
pub const TRAP_BREAKPOINT: u64 = 3;

/// The bits of a page fault's error code by name, lowest first.
///
/// Source: `enum x86_pf_error_code`, arch/x86/include/asm/trap_pf.h.
#[cfg(target_arch = "x86_64")]
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
