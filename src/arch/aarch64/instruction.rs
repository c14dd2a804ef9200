//! The instruction at the program counter: loads and stores, whose addresses are computed from the registers and never guessed, branches to
//! registers, and breakpoints. Others are not decoded.
//!
//! Source: Arm Architecture Reference Manual, C4.1 (A64 instruction set encoding); `access` has the tables of loads and stores.

use super::Registers;
use super::access::{self, Access};
use super::call::register_of_blr;
use super::unwind;
use crate::arch::{Division, Jump, Operand, Touch};

/// What the bytes at the program counter are.
pub(crate) enum Code<'a> {
    /// An instruction.
    Valid(Instruction<'a>),
    /// No instruction of this architecture, now and for ever (UDF). What is not decoded may be one.
    Invalid,
    /// None that is known, where newer processors have more.
    #[allow(dead_code, reason = "other architectures know")]
    Unlisted,
    /// Not enough of them, or one that is not decoded.
    Unknown,
}

/// An instruction and the registers before it.
pub(crate) struct Instruction<'a> {
    word: u32,
    kind: Kind,
    registers: &'a Registers,
}

enum Kind {
    Access(Access),
    Branch,
    Return,
    Breakpoint,
}

/// Decodes `code`, the bytes at the program counter of a 64-bit program.
pub(crate) fn decode<'a>(registers: &'a Registers, code: &[u8]) -> Code<'a> {
    let Some(word) = code.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else { return Code::Unknown };
    let kind = match access::decode(word) {
        Some(access) => Kind::Access(access),
        // BR, or BLR and those that check a signature first.
        None if word & 0xffff_fc1f == 0xd61f_0000 || register_of_blr(word).is_some() => Kind::Branch,
        // RET, RETAA and RETAB.
        None if word & 0xffff_fc1f == 0xd65f_0000 || matches!(word, 0xd65f_0bff | 0xd65f_0fff) => Kind::Return,
        // BRK
        None if word & 0xffe0_001f == 0xd420_0000 => Kind::Breakpoint,
        None if word >> 16 == 0 => return Code::Invalid,
        None => return Code::Unknown,
    };
    Code::Valid(Instruction { word, kind, registers })
}

/// Is `code`, from the program counter on, an instruction that doesn't move the stack pointer, as hlt, and then a return? No C library
/// ends a program so here.
pub(crate) fn is_return_next(_code: &[u8]) -> bool {
    false
}

/// Is the return address of the innermost frame where a call puts it, whatever call frame information there is? Right behind a call by a
/// register, as PSTATE.BTYPE says on processors with BTI.
pub(crate) fn is_caller_at_hand(registers: &Registers, _code: &[u8]) -> bool {
    registers.pstate >> 10 & 3 == 0b10
}

/// A register as an address takes it: number 31 is the stack pointer.
fn base(registers: &Registers, number: u32) -> Option<Operand> {
    let value = unwind::registers(registers).get(number as usize).copied()?;
    Some(Operand { name: if number == 31 { "sp".to_owned() } else { format!("x{number}") }, value })
}

impl Instruction<'_> {
    /// What it does, as assemblers begin to write it.
    pub(crate) fn name(&self) -> String {
        match &self.kind {
            Kind::Access(access) if access.reads && access.writes => "an atomic access",
            Kind::Access(access) if access.writes => "st",
            Kind::Access(_) => "ld",
            Kind::Branch => "br",
            Kind::Return => "ret",
            Kind::Breakpoint => "brk",
        }
        .to_owned()
    }

    /// All places that the instruction accesses and whose addresses follow from the registers.
    pub(crate) fn touches(&self) -> Vec<Touch> {
        let Kind::Access(access) = &self.kind else { return Vec::new() };
        self.touched(access).unwrap_or_default()
    }

    fn touched(&self, access: &Access) -> Option<Vec<Touch>> {
        let base_at = match access.base {
            Some(number) => Some(base(self.registers, number)?),
            None => None,
        };
        let (index, index_value) = match access.index {
            // Number 31 is the zero.
            Some(index) if index.number == 31 => (None, 0),
            Some(index) => {
                let full = base(self.registers, index.number)?;
                let value = index.extended(full.value);
                let name = if index.is_word() { full.name.replacen('x', "w", 1) } else { full.name };
                let shown = if index.is_word() { full.value & 0xffff_ffff } else { full.value };
                (Some((Operand { name, value: shown }, 1 << index.shift)), value)
            }
            None => (None, 0),
        };
        let start = base_at.as_ref().map_or(self.registers.pc, |base| base.value);
        let address = start.wrapping_add(index_value).wrapping_add_signed(access.offset);
        let touch = |part: u64| Touch {
            address: super::untagged(address.wrapping_add(part * access.bytes)),
            bytes: access.bytes,
            base: base_at.clone(),
            index: index.clone(),
            is_on_stack: access.base == Some(31),
            is_in_frame: matches!(access.base, Some(29 | 31)),
            reads: access.reads,
            writes: access.writes,
        };
        Some((0..access.parts).map(touch).collect())
    }

    /// Only the kernel may execute it.
    pub(crate) fn is_privileged(&self) -> bool {
        false
    }

    /// It accesses a port of a device: no instruction does.
    pub(crate) fn is_port_access(&self) -> bool {
        false
    }

    /// It accesses memory whose address counts from the thread's own data: no instruction does without a register.
    pub(crate) fn is_by_thread(&self) -> bool {
        false
    }

    /// The register that the places of a gathering instruction are counted from: none of these is decoded.
    pub(crate) fn base_of_vector(&self) -> Option<Operand> {
        None
    }

    /// It takes from the stack what was put there: loads do, as any other.
    pub(crate) fn takes_from_stack(&self) -> bool {
        false
    }

    /// It stops the processor, which is the shortest instruction that ends a program.
    pub(crate) fn is_halt(&self) -> bool {
        false
    }

    /// It is a breakpoint.
    pub(crate) fn is_breakpoint(&self) -> bool {
        matches!(self.kind, Kind::Breakpoint)
    }

    /// The interrupt that it raises.
    pub(crate) fn interrupt(&self) -> Option<u8> {
        None
    }

    /// It is made to be no instruction: what compilers put where code must not be reached. They put a breakpoint there.
    pub(crate) fn is_trap(&self) -> bool {
        false
    }

    /// It locks the memory that it accesses: no instruction does.
    pub(crate) fn is_locked(&self) -> bool {
        false
    }

    /// The features that it needs and that not every processor of this architecture has. Those of what is decoded are not known.
    pub(crate) fn features(&self) -> Vec<String> {
        Vec::new()
    }

    /// Where it goes on. `None` means that it is no jump through a pointer, or that the register isn't known.
    pub(crate) fn jump(&self) -> Option<Jump> {
        match self.kind {
            Kind::Branch => base(self.registers, self.word >> 5 & 31).filter(|at| at.name != "sp").map(Jump::Register),
            Kind::Return => Some(Jump::Return),
            Kind::Access(_) | Kind::Breakpoint => None,
        }
    }

    /// What the access must be aligned to, and whether the manual says so of this very instruction.
    pub(crate) fn alignment(&self, touch: &Touch) -> Option<(u64, bool)> {
        access::needs_alignment(self.word).then_some((touch.bytes, true))
    }

    /// The division that it is: none faults.
    pub(crate) fn division(&self) -> Option<Division> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: u64 = 0xaaaa_aaaa_5000;

    /// The addresses that the instruction reads (r) and writes (w), with sp 0xffff00001000, x0 0x1000, x1 0x2000, x2 2, x3 -2 in 32 bits.
    fn touched(word: u32) -> Vec<(u64, u64, &'static str)> {
        let registers = Registers {
            pc: CODE,
            sp: 0xffff_0000_1000,
            x0: 0x1000,
            x1: 0x2000,
            x2: 2,
            x3: 0xffff_fffe,
            ..Registers::default()
        };
        let Code::Valid(instruction) = decode(&registers, &word.to_le_bytes()) else {
            panic!("not decoded: {word:#x}")
        };
        instruction.touches().iter().map(Touch::extent).collect()
    }

    /// Each is an instruction of GNU as.
    #[test]
    fn addresses_are_computed_as_the_processor_does() {
        assert_eq!(touched(0xb900_1c00), [(0x101c, 4, "w")], "str w0, [x0, #28]");
        assert_eq!(touched(0x39c0_0400), [(0x1001, 1, "r")], "ldrsb w0, [x0, #1]");
        assert_eq!(touched(0x3dc0_0400), [(0x1010, 16, "r")], "ldr q0, [x0, #16]");
        assert_eq!(touched(0xf85f_8000), [(0xff8, 8, "r")], "ldur x0, [x0, #-8]");
        assert_eq!(touched(0xf81f_0fe0), [(0xffff_0000_0ff0, 8, "w")], "str x0, [sp, #-16]!");
        assert_eq!(touched(0xf840_8400), [(0x1000, 8, "r")], "ldr x0, [x0], #8");
        assert_eq!(touched(0xf862_7800), [(0x1010, 8, "r")], "ldr x0, [x0, x2, lsl #3]");
        assert_eq!(touched(0xb863_d800), [(0xff8, 4, "r")], "ldr w0, [x0, w3, sxtw #2]");
        assert_eq!(touched(0xb863_4800), [(0x1_0000_0ffe, 4, "r")], "ldr w0, [x0, w3, uxtw]");
        assert_eq!(touched(0xb87f_6800), [(0x1000, 4, "r")], "ldr w0, [x0, xzr]");
        assert_eq!(touched(0x5800_0040), [(CODE + 8, 8, "r")], "ldr x0, .+8");
        assert_eq!(
            touched(0xa9be_7bfd),
            [(0xffff_0000_0fe0, 8, "w"), (0xffff_0000_0fe8, 8, "w")],
            "stp x29, x30, [sp, #-32]!"
        );
        assert_eq!(touched(0x6941_0400), [(0x1008, 4, "r"), (0x100c, 4, "r")], "ldpsw x0, x1, [x0, #8]");
        assert_eq!(touched(0xad41_0400), [(0x1020, 16, "r"), (0x1030, 16, "r")], "ldp q0, q1, [x0, #32]");
        assert_eq!(touched(0xc85f_7c20), [(0x2000, 8, "r")], "ldxr x0, [x1]");
        assert_eq!(touched(0x8802_fc20), [(0x2000, 4, "w")], "stlxr w2, w0, [x1]");
        assert_eq!(touched(0xc8df_fc20), [(0x2000, 8, "r")], "ldar x0, [x1]");
        assert_eq!(touched(0xc8a0_7c22), [(0x2000, 8, "rw")], "cas x0, x2, [x1]");
        assert_eq!(touched(0xb820_0022), [(0x2000, 4, "rw")], "ldadd w0, w2, [x1]");
        assert_eq!(touched(0x38bf_c020), [(0x2000, 1, "r")], "ldaprb w0, [x1]");
        assert_eq!(touched(0x4c40_7020), [(0x2000, 16, "r")], "ld1 v0.16b, [x1]");
        assert_eq!(touched(0x0d00_8021), [(0x2000, 4, "w")], "st1 v1.s[0], [x1]");
        assert_eq!(touched(0xf980_0000), [], "prfm pldl1keep, [x0]");
    }

    /// Each at an address that is no multiple of its size.
    #[test]
    fn some_accesses_need_an_alignment() {
        let of = |word: u32| {
            let registers = Registers { x0: 0x1001, x1: 0x2001, ..Registers::default() };
            let Code::Valid(instruction) = decode(&registers, &word.to_le_bytes()) else { panic!("{word:#x}") };
            instruction.alignment(instruction.touches().first().unwrap()).map(|(bytes, _)| bytes)
        };
        assert_eq!(of(0xc85f_7c20), Some(8), "ldxr x0, [x1]");
        assert_eq!(of(0x8802_fc20), Some(4), "stlxr w2, w0, [x1]");
        assert_eq!(of(0xc87f_0c22), Some(16), "ldxp x2, x3, [x1]");
        assert_eq!(of(0xc8df_fc20), Some(8), "ldar x0, [x1]");
        assert_eq!(of(0xb820_0022), Some(4), "ldadd w0, w2, [x1]");
        assert_eq!(of(0xf940_0020), None, "ldr x0, [x1]");
        assert_eq!(of(0xa940_0420), None, "ldp x0, x1, [x1]");
        assert_eq!(of(0xf862_7800), None, "ldr x0, [x0, x2, lsl #3]");
    }

    #[test]
    fn a_tag_is_no_part_of_an_address() {
        let registers = Registers { x0: 0xab00_0000_0000_1000, ..Registers::default() };
        let Code::Valid(instruction) = decode(&registers, &0xb900_1c00_u32.to_le_bytes()) else { panic!() };
        assert_eq!(instruction.touches().first().unwrap().address, 0x101c);
    }

    #[test]
    fn branches_and_breakpoints() {
        let registers = Registers { x3: 0x1234, ..Registers::default() };
        let of = |word: u32| match decode(&registers, &word.to_le_bytes()) {
            Code::Valid(instruction) => Some((instruction.jump(), instruction.is_breakpoint())),
            _ => None,
        };
        let x3 = Some(Jump::Register(Operand { name: "x3".to_owned(), value: 0x1234 }));
        assert_eq!(of(0xd61f_0060), Some((x3.clone(), false)), "br x3");
        assert_eq!(of(0xd63f_0060), Some((x3, false)), "blr x3");
        assert_eq!(of(0xd65f_03c0), Some((Some(Jump::Return), false)), "ret");
        assert_eq!(of(0xd65f_0bff), Some((Some(Jump::Return), false)), "retaa");
        assert_eq!(of(0xd420_7d00), Some((None, true)), "brk #1000");
        assert_eq!(of(0x8b02_0020), None, "add x0, x1, x2");
        assert!(matches!(decode(&registers, &0x1234_u32.to_le_bytes()), Code::Invalid), "udf #0x1234");
    }
}
