//! The instruction at `rip`, and the memory that it touches: addresses are computed from the registers, never guessed.

use iced_x86::{
    Decoder, DecoderError, DecoderOptions, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess,
    Register, UsedMemory,
};

use super::words::hex;
use crate::arch::Registers;
use crate::evidence::{Access, Evidence};
use crate::page;

/// What the bytes at `rip` are.
pub(super) enum Code {
    /// An instruction.
    Valid(Instruction),
    /// None that a processor knows.
    Invalid,
    /// Not read, or not enough of them.
    Unknown,
}

pub(super) fn decode(facts: &Evidence) -> Code {
    let (Some(registers), Some(code), false) = (&facts.registers, &facts.code, facts.is_compat) else {
        return Code::Unknown;
    };
    let mut decoder = Decoder::with_ip(64, code, registers.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    match decoder.last_error() {
        DecoderError::None => Code::Valid(instruction),
        DecoderError::InvalidInstruction => Code::Invalid,
        _ => Code::Unknown,
    }
}

/// The instruction and the registers, where both are known.
pub(super) fn decoded(facts: &Evidence) -> Option<(Instruction, &Registers)> {
    match decode(facts) {
        Code::Valid(instruction) => Some((instruction, facts.registers.as_ref()?)),
        Code::Invalid | Code::Unknown => None,
    }
}

/// As assemblers write it.
pub(super) fn mnemonic(mnemonic: Mnemonic) -> String {
    format!("{mnemonic:?}").to_ascii_lowercase()
}

/// A register's name as debuggers write it.
pub(super) fn register_name(register: Register) -> String {
    format!("{register:?}").to_ascii_lowercase()
}

/// A general register's value, cut to its size. None: of another kind (a vector, a segment).
pub(super) fn register_value(registers: &Registers, register: Register) -> Option<u64> {
    let full = match register.full_register() {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::RIP => registers.rip,
        _ => return None,
    };
    let full =
        if matches!(register, Register::AH | Register::BH | Register::CH | Register::DH) { full >> 8 } else { full };
    Some(match register.size() {
        1 => full & 0xff,
        2 => full & 0xffff,
        4 => full & 0xffff_ffff,
        _ => full,
    })
}

/// One place in memory that an instruction accesses.
pub(super) struct Touch {
    /// First byte.
    pub address: u64,
    /// How many; 1 where the instruction alone doesn't tell.
    pub bytes: u64,
    /// The registers that the address is made of.
    pub base: Option<(Register, u64)>,
    /// With the scale that it is multiplied by.
    pub index: Option<(Register, u64, u32)>,
    reads: bool,
    writes: bool,
}

impl Touch {
    /// The registers with their values, as a sentence names them.
    pub(super) fn registers(&self) -> String {
        let index = self.index.map(|(register, value, _)| (register, value));
        let named: Vec<String> = [self.base, index]
            .into_iter()
            .flatten()
            .map(|(register, value)| format!("{} is {}", register_name(register), short(value)))
            .collect();
        named.join(", ")
    }

    /// ` (rax is 0x1)`, empty where no register takes part.
    pub(super) fn in_brackets(&self) -> String {
        let registers = self.registers();
        if registers.is_empty() { registers } else { format!(" ({registers})") }
    }

    /// The address comes from the stack pointer.
    pub(super) fn is_on_stack(&self) -> bool {
        self.base.is_some_and(|(register, _)| register.full_register() == Register::RSP)
    }
}

/// 0 rather than 0x0.
pub(super) fn short(value: u64) -> String {
    if value == 0 { "0".to_owned() } else { hex(value).to_string() }
}

/// Every place that the instruction accesses and whose address the registers tell: not what fs, gs or vectors point to.
pub(super) fn touches(instruction: &Instruction, registers: &Registers) -> Vec<Touch> {
    let mut factory = InstructionInfoFactory::new();
    factory.info(instruction).used_memory().iter().filter_map(|memory| touch(memory, registers)).collect()
}

fn touch(memory: &UsedMemory, registers: &Registers) -> Option<Touch> {
    let (reads, writes) = match memory.access() {
        OpAccess::Read | OpAccess::CondRead => (true, false),
        OpAccess::Write | OpAccess::CondWrite => (false, true),
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
        // An address that is computed only: lea, prefetch, a long nop.
        _ => return None,
    };
    let value = |register| register_value(registers, register);
    let address = memory.try_virtual_address(0, |register, _, _| match register {
        // Flat in 64-bit code.
        Register::DS | Register::ES | Register::SS | Register::CS => Some(0),
        register => value(register),
    })?;
    let known = |register: Register| Some(register).filter(|register| *register != Register::None);
    Some(Touch {
        address,
        bytes: bytes(memory.memory_size()),
        base: known(memory.base()).and_then(|base| Some((base, value(base)?))),
        index: known(memory.index()).and_then(|index| Some((index, value(index)?, memory.scale()))),
        reads,
        writes,
    })
}

fn bytes(size: MemorySize) -> u64 {
    (size.size() as u64).max(1)
}

/// The access that faulted at the fault address; None: the instruction, as far as it is known, accesses no such place.
pub(super) fn faulting_touch(facts: &Evidence) -> Option<Touch> {
    let address = facts.fault_address?;
    let (instruction, registers) = decoded(facts)?;
    touches(&instruction, registers).into_iter().find(|touch| {
        let direction = if facts.access() == Access::Write { touch.writes } else { touch.reads };
        // An access that crosses into a page faults at the page's first byte.
        let crosses = page::offset(address) == 0 && address.wrapping_sub(touch.address) < touch.bytes;
        direction && (address == touch.address || crosses)
    })
}

#[cfg(test)]
mod tests {
    use super::super::cases::{CODE, Case, signal};
    use super::*;

    /// The addresses that the code reads (r) and writes (w), with rsp 0x7ffd00001000, rdi 0x1000, rsi 0x2000, rcx 2.
    fn touched(code: &[u8]) -> Vec<(u64, u64, &'static str)> {
        let mut case = Case { code: code.to_vec(), ..signal(11, 1) };
        (case.registers.rdi, case.registers.rsi, case.registers.rcx) = (0x1000, 0x2000, 2);
        let evidence = case.evidence();
        let (instruction, registers) = decoded(&evidence).unwrap();
        let direction = |touch: &Touch| match (touch.reads, touch.writes) {
            (true, true) => "rw",
            (true, false) => "r",
            _ => "w",
        };
        touches(&instruction, registers).iter().map(|touch| (touch.address, touch.bytes, direction(touch))).collect()
    }

    #[test]
    fn addresses_are_computed_as_the_processor_does() {
        assert_eq!(touched(&[0x8b, 0x44, 0x8f, 0xfc]), [(0x1004, 4, "r")], "mov eax, [rdi+rcx*4-4]");
        assert_eq!(touched(&[0x83, 0x07, 0x01]), [(0x1000, 4, "rw")], "add dword [rdi], 1");
        assert_eq!(touched(&[0x50]), [(0x7ffd_0000_0ff8, 8, "w")], "push rax");
        assert_eq!(touched(&[0x8b, 0x05, 0x10, 0, 0, 0]), [(CODE + 6 + 0x10, 4, "r")], "mov eax, [rip+0x10]");
        assert_eq!(touched(&[0x67, 0x8b, 0x07]), [(0x1000, 4, "r")], "mov eax, [edi]");
        let mut copied = touched(&[0xf3, 0xa4]);
        copied.sort_unstable();
        assert_eq!(copied, [(0x1000, 1, "w"), (0x2000, 1, "r")], "rep movsb");
        assert_eq!(touched(&[0x48, 0x8d, 0x07]), [], "lea rax, [rdi]");
        assert_eq!(touched(&[0x64, 0x8b, 0x07]), [], "mov eax, fs:[rdi]");
        assert_eq!(touched(&[0xc4, 0xe2, 0x71, 0x90, 0x04, 0x97]), [], "vpgatherdd xmm0, [rdi+xmm2*4], xmm1");
    }

    #[test]
    fn parts_of_registers() {
        let mut case = signal(11, 1);
        case.registers.rax = 0x1122_3344_5566_7788;
        let registers = &case.registers;
        let parts = [(Register::EAX, 0x5566_7788), (Register::AX, 0x7788), (Register::AH, 0x77), (Register::AL, 0x88)];
        for (register, value) in parts {
            assert_eq!(register_value(registers, register), Some(value), "{register:?}");
        }
        assert_eq!(register_value(registers, Register::XMM0), None);
    }
}
