//! arm64: the registers and page faults. The kernel half is `bpf/include/arch_arm64.h`.

mod access;
mod arrival;
mod call;
pub(crate) mod compat;
pub(crate) mod halt;
mod instruction;
mod linkage;
mod refusal;
pub(crate) mod syscall;
pub(crate) mod unwind;

pub(crate) use arrival::arrival;
pub(crate) use call::{CALL_BYTES_MAX, call_before};
pub(crate) use instruction::{Code, Instruction, decode, is_caller_at_hand, is_return_next};
pub(crate) use linkage::{LINKS, slot_of};
pub(crate) use refusal::{may_jump, refusal};

use super::TrapKind;
use crate::hex::Hex;

/// The frame that a function makes which begins with this code and keeps a frame pointer. It isn't decoded: compilers describe a frame of a fixed
/// size by the stack pointer.
pub(crate) fn frame_of_prologue(_: &[u8]) -> Option<u64> {
    None
}

/// The registers of a thread. All 0 where nothing is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have the processor's own names")]
pub(crate) struct Registers {
    pub x0: u64,
    pub x1: u64,
    pub x2: u64,
    pub x3: u64,
    pub x4: u64,
    pub x5: u64,
    pub x6: u64,
    pub x7: u64,
    pub x8: u64,
    pub x9: u64,
    pub x10: u64,
    pub x11: u64,
    pub x12: u64,
    pub x13: u64,
    pub x14: u64,
    pub x15: u64,
    pub x16: u64,
    pub x17: u64,
    pub x18: u64,
    pub x19: u64,
    pub x20: u64,
    pub x21: u64,
    pub x22: u64,
    pub x23: u64,
    pub x24: u64,
    pub x25: u64,
    pub x26: u64,
    pub x27: u64,
    pub x28: u64,
    pub x29: u64,
    pub x30: u64,
    pub sp: u64,
    pub pc: u64,
    pub pstate: u64,
}

/// Does the code begin with what abort() of libc comes to where SIGABRT has not ended the process? It was not tried.
pub(crate) fn is_aborts_halt(_code: &[u8]) -> bool {
    false
}

/// Is it that of glibc's abort()? It was not tried.
pub(crate) fn is_glibcs_aborts_halt(_code: &[u8]) -> bool {
    false
}

/// e_machine in an ELF file of this architecture.
pub(crate) const ELF_MACHINE: u16 = object::elf::EM_AARCH64;

/// The registers by name, in the order in which a debugger shows them.
pub(crate) fn registers(from: &Registers) -> Vec<(&'static str, Hex)> {
    vec![
        ("x0", Hex(from.x0)),
        ("x1", Hex(from.x1)),
        ("x2", Hex(from.x2)),
        ("x3", Hex(from.x3)),
        ("x4", Hex(from.x4)),
        ("x5", Hex(from.x5)),
        ("x6", Hex(from.x6)),
        ("x7", Hex(from.x7)),
        ("x8", Hex(from.x8)),
        ("x9", Hex(from.x9)),
        ("x10", Hex(from.x10)),
        ("x11", Hex(from.x11)),
        ("x12", Hex(from.x12)),
        ("x13", Hex(from.x13)),
        ("x14", Hex(from.x14)),
        ("x15", Hex(from.x15)),
        ("x16", Hex(from.x16)),
        ("x17", Hex(from.x17)),
        ("x18", Hex(from.x18)),
        ("x19", Hex(from.x19)),
        ("x20", Hex(from.x20)),
        ("x21", Hex(from.x21)),
        ("x22", Hex(from.x22)),
        ("x23", Hex(from.x23)),
        ("x24", Hex(from.x24)),
        ("x25", Hex(from.x25)),
        ("x26", Hex(from.x26)),
        ("x27", Hex(from.x27)),
        ("x28", Hex(from.x28)),
        ("x29", Hex(from.x29)),
        ("x30", Hex(from.x30)),
        ("sp", Hex(from.sp)),
        ("pc", Hex(from.pc)),
        ("pstate", Hex(from.pstate)),
    ]
}

/// The instruction pointer among the registers.
pub(crate) fn instruction_pointer(from: &Registers) -> u64 {
    from.pc
}

/// The stack pointer among the registers.
pub(crate) fn stack_pointer(from: &Registers) -> u64 {
    from.sp
}

/// The registers that a sample has, which have the same names there.
macro_rules! registers_of {
    ($sample:expr) => {
        $crate::arch::Registers {
            x0: $sample.x0,
            x1: $sample.x1,
            x2: $sample.x2,
            x3: $sample.x3,
            x4: $sample.x4,
            x5: $sample.x5,
            x6: $sample.x6,
            x7: $sample.x7,
            x8: $sample.x8,
            x9: $sample.x9,
            x10: $sample.x10,
            x11: $sample.x11,
            x12: $sample.x12,
            x13: $sample.x13,
            x14: $sample.x14,
            x15: $sample.x15,
            x16: $sample.x16,
            x17: $sample.x17,
            x18: $sample.x18,
            x19: $sample.x19,
            x20: $sample.x20,
            x21: $sample.x21,
            x22: $sample.x22,
            x23: $sample.x23,
            x24: $sample.x24,
            x25: $sample.x25,
            x26: $sample.x26,
            x27: $sample.x27,
            x28: $sample.x28,
            x29: $sample.x29,
            x30: $sample.x30,
            sp: $sample.sp,
            pc: $sample.pc,
            pstate: $sample.pstate,
        }
    };
}
pub(crate) use registers_of;

/// How far below the stack pointer a function may reach: there is no red zone (AAPCS64, 6.4.5.1), and one push of two vector registers
/// takes 1024 bytes at most (STP, pre-index).
pub(crate) const REACH_BELOW_STACK_POINTER: u64 = 1024;

/// Below this no process maps anything: vm.mmap_min_addr, DEFAULT_MMAP_MIN_ADDR of kernels that run 32-bit programs.
pub(crate) const LEAST_ADDRESS: u64 = 32 << 10;

/// The kernel's half of the address space begins here.
pub(crate) const KERNEL_ADDRESS: u64 = 1 << 63;

/// SA_RESTORER, arch/arm64/include/uapi/asm/signal.h: of 32-bit programs.
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;

/// May memory with this protection (PROT_* of mmap(2)) be read? If it may be written, too. Not if it may be executed alone, on processors
/// that have such pages; the others refuse no read of it.
pub(crate) fn is_readable(protection: u64) -> bool {
    protection & (libc::PROT_READ | libc::PROT_WRITE) as u64 != 0
}

/// The cache line of most processors; the granule of an exclusive access may be larger.
pub(crate) const CACHE_LINE_BYTES: u64 = 64;

/// The instruction that raises a breakpoint's trap.
pub(crate) const BREAKPOINT: &str = "brk";

/// The code of a signal for bytes that are no instruction: ILL_ILLOPC, include/uapi/asm-generic/siginfo.h.
pub(crate) const NO_INSTRUCTION_CODE: i32 = 1;

/// A call leaves its return address in a register, where it stays when the function that was called has returned.
pub(crate) const LINK_OUTLIVES_CALL: bool = true;

/// The code of a signal for the breakpoint at the program counter: TRAP_BRKPT, include/uapi/asm-generic/siginfo.h.
pub(crate) const BREAKPOINT_CODE: Option<i32> = Some(1);

/// The tracepoint of page faults of user mode: these kernels have none.
pub(crate) const PAGE_FAULT_TRACEPOINT: Option<&str> = None;

/// The longest instruction.
pub(crate) const INSTRUCTION_BYTES_MAX: usize = 4;

/// What a trap's number stands for: none decides something, as the kernel has codes of their own for all of them.
pub(crate) fn trap(_number: u64) -> Option<TrapKind> {
    None
}

/// The program asked for alignment checks: it can't.
pub(crate) fn checks_alignment(_registers: &Registers) -> bool {
    false
}

/// An address without the byte that the processor ignores (TBI).
fn untagged(address: u64) -> u64 {
    if address >> 55 & 1 != 0 { address } else { address << 8 >> 8 }
}

/// It is an address at all, on a processor with addresses of 48 bits.
pub(crate) fn is_address(address: u64) -> bool {
    is_extended(untagged(address), 48)
}

/// The same on one with addresses of 52 bits.
pub(crate) fn may_be_address(address: u64) -> bool {
    is_extended(untagged(address), 52)
}

/// Bits 63 to `bits` are equal.
fn is_extended(address: u64, bits: u32) -> bool {
    address >> bits == 0 || address >> bits == u64::MAX >> bits
}

/// What the exception syndrome of an abort says, by name: ESR_EL1, Arm Architecture Reference Manual.
pub(crate) fn page_fault_flags(syndrome: u64) -> Vec<&'static str> {
    const WRITE: u64 = 1 << 6;
    const CACHE_MAINTENANCE: u64 = 1 << 8;
    let class = syndrome >> 26 & 0x3f;
    let kind = match syndrome & 0x3f {
        0x04..=0x07 | 0x2b => Some("translation"),
        0x08..=0x0b => Some("access_flag"),
        0x0c..=0x0f => Some("permission"),
        0x10 | 0x13..=0x17 => Some("external_abort"),
        0x11 => Some("tag_check"),
        0x18 | 0x1b..=0x1f => Some("parity"),
        0x21 => Some("alignment"),
        _ => None,
    };
    let is_maintenance = syndrome & CACHE_MAINTENANCE != 0;
    let flags = [
        (syndrome & WRITE != 0 && !is_maintenance, "write"),
        // Aborts of user mode have classes of their own.
        (matches!(class, 0x20 | 0x24), "user"),
        (matches!(class, 0x20 | 0x21), "instruction"),
        (is_maintenance, "cache_maintenance"),
    ];
    kind.into_iter().chain(flags.into_iter().filter(|(is_so, _)| *is_so).map(|(_, name)| name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for address in [0, 0xffff_ffff_ffff, 0xab00_ffff_ffff_ffff, 0xffff_8000_0000_0000] {
            assert!(is_address(address), "{address:#x}");
        }
        for address in [0x0012_3456_7890_1230, 0x0020_ffff_8000_0000] {
            assert!(!is_address(address) && !may_be_address(address), "{address:#x}");
        }
        assert!(!is_address(1 << 51) && may_be_address(1 << 51));
    }

    /// Each was seen on a kernel: see the names of the faults.
    #[test]
    fn syndromes() {
        let table: [(u64, &[&str]); 10] = [
            (0x9200_0046, &["translation", "write", "user"]),      // a write to NULL
            (0x9200_0006, &["translation", "user"]),               // a read of NULL
            (0x9200_004f, &["permission", "write", "user"]),       // a write to memory that may be read
            (0x9200_0007, &["translation", "user"]),               // a read of memory that may not be accessed
            (0x8200_000f, &["permission", "user", "instruction"]), // data is executed
            (0x9200_0021, &["alignment", "user"]),                 // an exclusive load
            (0x9200_0051, &["tag_check", "write", "user"]),        // MTE
            (0x8200_0004, &["translation", "user", "instruction"]), // a return to an address that was signed otherwise
            (0x9200_014f, &["permission", "user", "cache_maintenance"]),
            (0, &[]),
        ];
        for (syndrome, expected) in table {
            assert_eq!(page_fault_flags(syndrome), expected, "{syndrome:#x}");
        }
    }
}
