//! The registers of one frame, as far as they are known.

use gimli::{Register, X86_64};

/// rip has the number of the return address.
const COUNT: usize = 17;

/// Registers under DWARF's numbers (System V ABI for AMD64, figure 3.36): rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15,
/// and rip. None: unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers([Option<u64>; COUNT]);

impl Registers {
    /// All are known.
    pub fn new(values: [u64; COUNT]) -> Self {
        Self(values.map(Some))
    }

    /// What a frame pointer leads to.
    pub(super) fn of_frame(ip: u64, sp: u64, bp: u64) -> Self {
        Self([None; COUNT]).with(X86_64::RA, ip).with(X86_64::RSP, sp).with(X86_64::RBP, bp)
    }

    pub(super) fn from_fn(value: impl Fn(Register) -> Option<u64>) -> Self {
        // At most 17.
        Self(std::array::from_fn(|number| value(Register(number as u16))))
    }

    pub(super) fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }

    pub(super) fn with(mut self, register: Register, value: u64) -> Self {
        if let Some(known) = self.0.get_mut(usize::from(register.0)) {
            *known = Some(value);
        }
        self
    }
}
