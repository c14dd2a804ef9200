//! The instruction at the program counter, by iced-x86: addresses are computed from the registers, never guessed.

use iced_x86::{
    Code as Opcode, CpuidFeature, Decoder, DecoderError, DecoderOptions, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register, UsedMemory,
};

use super::Registers;
use crate::arch::{Jump, Operand, Touch};

/// What the bytes at the program counter are.
pub(crate) enum Code<'a> {
    /// An instruction.
    Valid(Instruction<'a>),
    /// None that is known, where newer processors have more: APX, the next AVX.
    Unlisted,
    /// No instruction of this architecture.
    Invalid,
    /// Not enough of them.
    Unknown,
}

/// An instruction and the registers before it.
pub(crate) struct Instruction<'a> {
    pub(super) decoded: iced_x86::Instruction,
    pub(super) registers: &'a Registers,
}

/// Decodes `code`, the bytes at the program counter of a 64-bit program.
pub(crate) fn decode<'a>(registers: &'a Registers, code: &[u8]) -> Code<'a> {
    let mut decoder = Decoder::with_ip(64, code, registers.rip, DecoderOptions::NONE);
    let decoded = decoder.decode();
    match decoder.last_error() {
        DecoderError::None => Code::Valid(Instruction { decoded, registers }),
        DecoderError::InvalidInstruction if may_be_newer(code) => Code::Unlisted,
        DecoderError::InvalidInstruction => Code::Invalid,
        _ => Code::Unknown,
    }
}

/// Do the bytes stand where extensions have their instructions? Behind a prefix for these, or in the table of two bytes.
fn may_be_newer(code: &[u8]) -> bool {
    const LEGACY: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];
    const REX: std::ops::RangeInclusive<u8> = 0x40..=0x4f;
    /// The table of two bytes, EVEX, VEX, REX2.
    const EXTENSIONS: [u8; 5] = [0x0f, 0x62, 0xc4, 0xc5, 0xd5];
    let first = code.iter().find(|byte| !LEGACY.contains(byte) && !REX.contains(byte));
    first.is_some_and(|byte| EXTENSIONS.contains(byte))
}

/// Is `code`, from the program counter on, an instruction that doesn't move the stack pointer, as hlt, and then a return?
pub(crate) fn is_return_next(code: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let (first, second) = (decoder.decode(), decoder.decode());
    first.code() == Opcode::Hlt && second.code() == Opcode::Retnq
}

/// Is the return address of the innermost frame where a call puts it, whatever call frame information there is?
pub(crate) fn is_caller_at_hand(_registers: &Registers, code: &[u8]) -> bool {
    is_return_next(code)
}

/// Features that every x86_64 processor has.
const BASELINE: [CpuidFeature; 19] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL8086_ONLY,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL386_ONLY,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CPUID,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::MMX,
    CpuidFeature::FXSR,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::MULTIBYTENOP,
];

impl Instruction<'_> {
    /// As assemblers write it.
    pub(crate) fn name(&self) -> String {
        format!("{:?}", self.decoded.mnemonic()).to_ascii_lowercase()
    }

    /// All places that the instruction accesses and whose addresses follow from the registers: not those by fs, gs or vectors.
    pub(crate) fn touches(&self) -> Vec<Touch> {
        let mut factory = InstructionInfoFactory::new();
        let memory = factory.info(&self.decoded).used_memory();
        let touched = memory.iter().filter_map(|memory| touch(memory, self.registers));
        match self.bit() {
            Some((bit, chunk)) => touched.filter_map(|touch| at_bit(touch, &bit, chunk)).collect(),
            None => touched.collect(),
        }
    }

    /// The register that has the number of a bit in memory, and by how many bytes such instructions access it.
    fn bit(&self) -> Option<(Operand, u64)> {
        use Mnemonic::{Bt, Btc, Btr, Bts};
        let is_bits =
            matches!(self.decoded.mnemonic(), Bt | Btc | Btr | Bts) && self.decoded.op0_kind() == OpKind::Memory;
        let register = Some(self.decoded.op1_register()).filter(|&register| is_bits && register != Register::None)?;
        Some((operand(self.registers, register)?, register.size() as u64))
    }

    /// The register that the places of a gathering or scattering instruction are counted from. `None`: it is none, or has no such register.
    pub(crate) fn base_of_vector(&self) -> Option<Operand> {
        let base = Some(self.decoded.memory_base()).filter(|&base| self.decoded.is_vsib() && base != Register::None)?;
        operand(self.registers, base)
    }

    /// Only the kernel may execute it.
    pub(crate) fn is_privileged(&self) -> bool {
        self.decoded.is_privileged()
    }

    /// It accesses a port of a device.
    pub(crate) fn is_port_access(&self) -> bool {
        use Mnemonic::{In, Insb, Insd, Insw, Out, Outsb, Outsd, Outsw};
        matches!(self.decoded.mnemonic(), In | Insb | Insd | Insw | Out | Outsb | Outsd | Outsw)
    }

    /// It accesses memory whose address counts from the thread's own data: by fs or gs.
    pub(crate) fn is_by_thread(&self) -> bool {
        let has_memory = (0..self.decoded.op_count()).any(|index| self.decoded.op_kind(index) == OpKind::Memory);
        has_memory && matches!(self.decoded.memory_segment(), Register::FS | Register::GS)
    }

    /// It takes from the stack what was put there.
    pub(crate) fn takes_from_stack(&self) -> bool {
        use Opcode::{Pop_r64, Popfq, Retnq, Retnq_imm16};
        matches!(self.decoded.code(), Pop_r64 | Popfq | Retnq | Retnq_imm16)
    }

    /// It stops the processor, which is the shortest instruction that ends a program.
    pub(crate) fn is_halt(&self) -> bool {
        self.decoded.mnemonic() == Mnemonic::Hlt
    }

    /// It is a breakpoint.
    pub(crate) fn is_breakpoint(&self) -> bool {
        self.decoded.mnemonic() == Mnemonic::Int3
    }

    /// The interrupt that it raises.
    pub(crate) fn interrupt(&self) -> Option<u8> {
        (self.decoded.mnemonic() == Mnemonic::Int).then(|| self.decoded.immediate8())
    }

    /// It is made to be no instruction: what compilers put where code must not be reached.
    pub(crate) fn is_trap(&self) -> bool {
        matches!(self.decoded.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2)
    }

    /// It locks the memory that it accesses.
    pub(crate) fn is_locked(&self) -> bool {
        self.decoded.has_lock_prefix() || self.decoded.mnemonic() == Mnemonic::Xchg
    }

    /// The features that it needs and that not every processor of this architecture has.
    pub(crate) fn features(&self) -> Vec<String> {
        let features = self.decoded.cpuid_features().iter();
        features.filter(|feature| !BASELINE.contains(feature)).map(|feature| format!("{feature:?}")).collect()
    }

    /// Where it goes on. `None` means that it is no jump through a pointer, or that the register isn't known.
    pub(crate) fn jump(&self) -> Option<Jump> {
        match self.decoded.code() {
            Opcode::Call_rm64 | Opcode::Jmp_rm64 if self.decoded.op0_register() == Register::None => Some(Jump::Memory),
            Opcode::Call_rm64 | Opcode::Jmp_rm64 => {
                operand(self.registers, self.decoded.op0_register()).map(Jump::Register)
            }
            Opcode::Retnq | Opcode::Retnq_imm16 => Some(Jump::Return),
            _ => None,
        }
    }
}

/// `None` means that it is no general register.
pub(super) fn operand(registers: &Registers, register: Register) -> Option<Operand> {
    let name = format!("{register:?}").to_ascii_lowercase();
    Some(Operand { name, value: register_value(registers, register)? })
}

/// A general register's value, cut to its size. `None` means that it is of another kind (a vector, a segment).
fn register_value(registers: &Registers, register: Register) -> Option<u64> {
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

/// The place of a bit, whose number counts from where the operand is, in either direction. `None` means that a third register takes part.
fn at_bit(touch: Touch, bit: &Operand, chunk: u64) -> Option<Touch> {
    let unused = u64::BITS - chunk as u32 * 8;
    let number = (bit.value << unused).cast_signed() >> unused;
    let distance = number.div_euclid(chunk.cast_signed() * 8) * chunk.cast_signed();
    let address = touch.address.wrapping_add_signed(distance);
    touch.index.is_none().then(|| Touch { address, index: Some((bit.clone(), 1)), ..touch })
}

fn touch(memory: &UsedMemory, registers: &Registers) -> Option<Touch> {
    let (reads, writes) = match memory.access() {
        OpAccess::Read | OpAccess::CondRead => (true, false),
        OpAccess::Write | OpAccess::CondWrite => (false, true),
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
        // An address that is computed only: lea, prefetch, a long nop.
        _ => return None,
    };
    let address = memory.try_virtual_address(0, |register, _, _| match register {
        // Flat in 64-bit code.
        Register::DS | Register::ES | Register::SS | Register::CS => Some(0),
        register => register_value(registers, register),
    })?;
    let known = |register: Register| (register != Register::None).then(|| operand(registers, register)).flatten();
    let base = memory.base().full_register();
    Some(Touch {
        address,
        bytes: (memory.memory_size().size() as u64).max(1),
        base: known(memory.base()),
        index: known(memory.index()).map(|index| (index, memory.scale())),
        is_on_stack: base == Register::RSP,
        is_in_frame: matches!(base, Register::RSP | Register::RBP),
        reads,
        writes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: u64 = 0x5555_5555_5000;

    /// The addresses that the code reads (r) and writes (w), with rsp 0x7ffd00001000, rdi 0x1000, rsi 0x2000, rcx 2.
    fn touched(code: &[u8]) -> Vec<(u64, u64, &'static str)> {
        let mut registers = Registers { rip: CODE, rsp: 0x7ffd_0000_1000, ..Registers::default() };
        (registers.rdi, registers.rsi, registers.rcx) = (0x1000, 0x2000, 2);
        let Code::Valid(instruction) = decode(&registers, code) else { panic!("no instruction: {code:x?}") };
        instruction.touches().iter().map(Touch::extent).collect()
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
        assert_eq!(touched(&[0x0f, 0xa3, 0x37]), [(0x1400, 4, "r")], "bt [rdi], esi");
        assert_eq!(touched(&[0x48, 0x0f, 0xb3, 0x37]), [(0x1400, 8, "rw")], "btr [rdi], rsi");
        assert_eq!(touched(&[0x0f, 0xba, 0x27, 9]), [(0x1000, 4, "r")], "bt dword [rdi], 9");
        assert_eq!(touched(&[0x48, 0x8d, 0x07]), [], "lea rax, [rdi]");
        assert_eq!(touched(&[0x64, 0x8b, 0x07]), [], "mov eax, fs:[rdi]");
        assert_eq!(touched(&[0xc4, 0xe2, 0x71, 0x90, 0x04, 0x97]), [], "vpgatherdd xmm0, [rdi+xmm2*4], xmm1");
    }

    #[test]
    fn a_bit_may_lie_before_its_operand() {
        let bit = |value, name: &str| Operand { name: name.to_owned(), value };
        let operand = || Touch {
            address: 0x1000,
            bytes: 4,
            base: None,
            index: None,
            is_on_stack: false,
            is_in_frame: false,
            reads: true,
            writes: false,
        };
        let at = |value, chunk| at_bit(operand(), &bit(value, "x"), chunk).unwrap().address;
        assert_eq!((at(31, 4), at(32, 4), at(u32::MAX.into(), 4), at(u64::MAX, 8)), (0x1000, 0x1004, 0xffc, 0xff8));
        let indexed = Touch { index: Some((bit(1, "y"), 8)), ..operand() };
        assert_eq!(at_bit(indexed, &bit(0, "x"), 4), None);
    }

    #[test]
    fn a_return_behind_a_halt() {
        assert!(is_return_next(&[0xf4, 0xc3, 0x90]));
        assert!(!is_return_next(&[0xf4, 0x90, 0xc3]) && !is_return_next(&[0x58, 0xc3]) && !is_return_next(&[0xf4]));
    }

    #[test]
    fn parts_of_registers() {
        let registers = Registers { rax: 0x1122_3344_5566_7788, ..Registers::default() };
        let parts = [(Register::EAX, 0x5566_7788), (Register::AX, 0x7788), (Register::AH, 0x77), (Register::AL, 0x88)];
        for (register, value) in parts {
            assert_eq!(register_value(&registers, register), Some(value), "{register:?}");
        }
        assert_eq!(register_value(&registers, Register::XMM0), None);
    }
}
