//! The instruction at the program counter. It is not decoded yet: what would need it is not known.

use std::convert::Infallible;
use std::marker::PhantomData;

use super::Registers;
use crate::arch::{Division, Jump, Touch};

/// What the bytes at the program counter are.
pub(crate) enum Code<'a> {
    /// An instruction.
    Valid(Instruction<'a>),
    /// No instruction of this architecture.
    Invalid,
    /// Not enough of them, or they are not decoded.
    Unknown,
}

/// An instruction and the registers before it. There is none: none is decoded.
pub(crate) struct Instruction<'a> {
    none: Infallible,
    registers: PhantomData<&'a Registers>,
}

/// Decodes `code`, the bytes at the program counter of a 64-bit program.
pub(crate) fn decode<'a>(_registers: &'a Registers, _code: &[u8]) -> Code<'a> {
    Code::Unknown
}

/// Is `code`, from the program counter on, an instruction that doesn't move the stack pointer, as hlt, and then a return? No C library
/// ends a program so here.
pub(crate) fn is_return_next(_code: &[u8]) -> bool {
    false
}

impl Instruction<'_> {
    /// As assemblers write it.
    pub(crate) fn name(&self) -> String {
        match self.none {}
    }

    /// All places that the instruction accesses and whose addresses follow from the registers.
    pub(crate) fn touches(&self) -> Vec<Touch> {
        match self.none {}
    }

    /// Only the kernel may execute it.
    pub(crate) fn is_privileged(&self) -> bool {
        match self.none {}
    }

    /// It stops the processor, which is the shortest instruction that ends a program.
    pub(crate) fn is_halt(&self) -> bool {
        match self.none {}
    }

    /// The interrupt that it raises.
    pub(crate) fn interrupt(&self) -> Option<u8> {
        match self.none {}
    }

    /// It is made to be no instruction: what compilers put where code must not be reached.
    pub(crate) fn is_trap(&self) -> bool {
        match self.none {}
    }

    /// It locks the memory that it accesses.
    pub(crate) fn is_locked(&self) -> bool {
        match self.none {}
    }

    /// The features that it needs and that not every processor of this architecture has.
    pub(crate) fn features(&self) -> Vec<String> {
        match self.none {}
    }

    /// Where it goes on.
    pub(crate) fn jump(&self) -> Option<Jump> {
        match self.none {}
    }

    /// What the access must be aligned to, and whether the manual says so of this very instruction.
    pub(crate) fn alignment(&self, _touch: &Touch) -> Option<(u64, bool)> {
        match self.none {}
    }

    /// The division that it is.
    pub(crate) fn division(&self) -> Option<Division> {
        match self.none {}
    }
}
