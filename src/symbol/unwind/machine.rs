//! Whether a process is a 64-bit or a 32-bit one: the words on its stack, and the numbers that its files give to registers.

use gimli::Register;

use super::stack::StackCopy;
use crate::arch::{compat, unwind as arch};

/// The kind of a process's code. Registers have the numbers of 64-bit code everywhere but in the rules of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Machine {
    /// 64 bits.
    #[default]
    Native,
    /// 32 bits.
    Compat,
}

impl Machine {
    pub(crate) fn of(is_compat: bool) -> Self {
        if is_compat { Self::Compat } else { Self::Native }
    }

    /// How long an address is.
    pub(super) fn word_bytes(self) -> u8 {
        match self {
            Self::Native => 8,
            Self::Compat => 4,
        }
    }

    /// A word on the stack.
    pub(super) fn read(self, stack: &StackCopy, address: u64) -> Option<u64> {
        match self {
            Self::Native => stack.read_word(address),
            Self::Compat => stack.read_half(address),
        }
    }

    /// An address that was calculated.
    pub(super) fn cut(self, address: u64) -> u64 {
        match self {
            Self::Native => address,
            Self::Compat => address & u64::from(u32::MAX),
        }
    }

    /// The register that a file's number means.
    pub(super) fn own(self, theirs: Register) -> Option<Register> {
        match self {
            Self::Native => Some(theirs),
            Self::Compat => compat::own(theirs),
        }
    }

    /// The number that files give to a register.
    pub(super) fn theirs(self, own: Register) -> Option<Register> {
        match self {
            Self::Native => Some(own),
            Self::Compat => compat::theirs(own),
        }
    }

    pub(super) fn is_kept(self, own: Register) -> bool {
        match self {
            Self::Native => arch::is_kept(own),
            Self::Compat => compat::is_kept(own),
        }
    }
}
