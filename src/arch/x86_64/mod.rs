//! x86-64: the registers, traps and page faults. The kernel half is `bpf/include/arch_x86_64.h`.

mod alignment;
mod arrival;
mod call;
pub(crate) mod compat;
mod division;
pub(crate) mod halt;
mod instruction;
mod linkage;
mod prologue;
pub(crate) mod syscall;
pub(crate) mod unwind;

pub(crate) use arrival::arrival;
pub(crate) use call::{CALL_BYTES_MAX, call_before};
pub(crate) use instruction::{Code, Instruction, decode, is_caller_at_hand, is_return_next};
pub(crate) use linkage::{LINKS, slot_of};
pub(crate) use prologue::frame_of_prologue;

use super::TrapKind;
use crate::hex::Hex;

/// The registers of a thread. All 0 where nothing is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have the processor's own names")]
pub(crate) struct Registers {
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

/// Does the code begin with what abort() of libc comes to where SIGABRT has not ended the process?
pub(crate) fn is_aborts_halt(code: &[u8]) -> bool {
    code.first() == Some(&0xf4)
}

/// Is it that of glibc's abort(), which compares how far it has come, or halts for ever?
pub(crate) fn is_glibcs_aborts_halt(code: &[u8]) -> bool {
    matches!(code, [0xf4, 0x83, 0x3d, _, _, _, _, 5, ..] | [0xf4, 0xeb, 0xfd, ..])
}

/// e_machine in an ELF file of this architecture.
pub(crate) const ELF_MACHINE: u16 = object::elf::EM_X86_64;

/// The registers by name, in the order in which a debugger shows them.
pub(crate) fn registers(from: &Registers) -> Vec<(&'static str, Hex)> {
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
pub(crate) fn instruction_pointer(from: &Registers) -> u64 {
    from.rip
}

/// The stack pointer among the registers.
pub(crate) fn stack_pointer(from: &Registers) -> u64 {
    from.rsp
}

/// The registers that a sample has, which have the same names there.
macro_rules! registers_of {
    ($sample:expr) => {
        $crate::arch::Registers {
            rip: $sample.rip,
            rsp: $sample.rsp,
            rbp: $sample.rbp,
            rax: $sample.rax,
            rbx: $sample.rbx,
            rcx: $sample.rcx,
            rdx: $sample.rdx,
            rsi: $sample.rsi,
            rdi: $sample.rdi,
            r8: $sample.r8,
            r9: $sample.r9,
            r10: $sample.r10,
            r11: $sample.r11,
            r12: $sample.r12,
            r13: $sample.r13,
            r14: $sample.r14,
            r15: $sample.r15,
            eflags: $sample.eflags,
            cs: $sample.cs,
            ss: $sample.ss,
        }
    };
}
pub(crate) use registers_of;

/// How far below the stack pointer a function may reach: the red zone (System V ABI 3.2.2) and one push.
pub(crate) const REACH_BELOW_STACK_POINTER: u64 = 128 + 8;

/// Below this no process maps anything: vm.mmap_min_addr, DEFAULT_MMAP_MIN_ADDR.
pub(crate) const LEAST_ADDRESS: u64 = 64 << 10;

/// The kernel's half of the address space begins here.
pub(crate) const KERNEL_ADDRESS: u64 = 1 << 63;

/// SA_RESTORER, arch/x86/include/uapi/asm/signal.h: libc adds it to each call of sigaction(2).
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;

/// May memory with this protection (PROT_* of mmap(2)) be read? If it may be written or executed, too: no page is without it.
pub(crate) fn is_readable(protection: u64) -> bool {
    protection & (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u64 != 0
}

/// An access that is split over two cache lines can't be locked in a cache.
pub(crate) const CACHE_LINE_BYTES: u64 = 64;

/// The instruction that raises a breakpoint's trap.
pub(crate) const BREAKPOINT: &str = "int3";

/// The code of a signal for bytes that are no instruction: ILL_ILLOPN, include/uapi/asm-generic/siginfo.h.
pub(crate) const NO_INSTRUCTION_CODE: i32 = 2;

/// A return takes the return address away.
pub(crate) const LINK_OUTLIVES_CALL: bool = false;

/// May this code have jumped to any address without a call? Nobody has to know: see [`LINK_OUTLIVES_CALL`].
pub(crate) fn may_jump(_code: &[u8]) -> bool {
    true
}

/// What the processor has refused, if a signal with this code says that: the traps are others.
pub(crate) fn refusal(
    _registers: &Registers,
    _code: Option<&[u8]>,
    _of: (u32, i32),
    _address: u64,
) -> Option<super::Refusal> {
    None
}

/// The code of a signal for the breakpoint at the program counter: there is none, as the program counter is behind it.
pub(crate) const BREAKPOINT_CODE: Option<i32> = None;

/// The tracepoint of page faults of user mode.
pub(crate) const PAGE_FAULT_TRACEPOINT: Option<&str> = Some("page_fault_user");

/// The longest instruction.
pub(crate) const INSTRUCTION_BYTES_MAX: usize = 15;

/// What a trap's number stands for: arch/x86/include/asm/trapnr.h.
pub(crate) fn trap(number: u64) -> Option<TrapKind> {
    match number {
        3 => Some(TrapKind::Breakpoint),
        12 => Some(TrapKind::StackSegment),
        13 => Some(TrapKind::GeneralProtection),
        _ => None,
    }
}

/// The program asked for alignment checks: EFLAGS.AC.
pub(crate) fn checks_alignment(registers: &Registers) -> bool {
    const ALIGNMENT_CHECK: u64 = 1 << 18;
    registers.eflags & ALIGNMENT_CHECK != 0
}

/// It is an address at all (canonical), on a processor with four levels of page tables.
pub(crate) fn is_address(address: u64) -> bool {
    is_canonical(address, 48)
}

/// The same on one with five levels: where it isn't, it is an address nowhere.
pub(crate) fn may_be_address(address: u64) -> bool {
    is_canonical(address, 57)
}

/// Bits 63 to `bits` - 1 are equal.
fn is_canonical(address: u64, bits: u32) -> bool {
    let shift = 64 - bits;
    (((address << shift) as i64) >> shift) as u64 == address
}

/// What a page fault's error code says, by name: its bits, lowest first.
pub(crate) fn page_fault_flags(error_code: u64) -> Vec<&'static str> {
    PAGE_FAULT_BITS.iter().filter(|(bit, _)| error_code >> bit & 1 != 0).map(|(_, name)| *name).collect()
}

/// Source: `enum x86_pf_error_code`, arch/x86/include/asm/trap_pf.h.
const PAGE_FAULT_BITS: [(u32, &str); 8] = [
    (0, "protection"),
    (1, "write"),
    (2, "user"),
    (3, "reserved"),
    (4, "instruction"),
    (5, "protection_key"),
    (6, "shadow_stack"),
    (15, "sgx"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_addresses() {
        for address in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
            assert!(is_address(address), "{address:#x}");
        }
        for address in [0x8000_0000_0000, 0xffff_7fff_ffff_ffff, 0xdead_0000_0000_0000] {
            assert!(!is_address(address), "{address:#x}");
        }
        assert!(may_be_address(0x8000_0000_0000));
        assert!(!may_be_address(0xdead_0000_0000_0000));
    }
}
