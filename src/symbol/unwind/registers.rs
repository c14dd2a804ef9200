//! The registers of one frame, as far as they are known.

use gimli::Register;

use crate::arch::unwind::{COUNT, FRAME_POINTER, PROGRAM_COUNTER, STACK_POINTER, Values};

/// Registers under DWARF's numbers, as [`crate::arch::unwind`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registers(Values);

impl Registers {
    /// All are known.
    pub(crate) fn new(values: [u64; COUNT]) -> Self {
        Self(values.map(Some))
    }

    /// The frame that a frame pointer leads to.
    pub(super) fn of_frame(ip: u64, sp: u64, bp: u64) -> Self {
        Self([None; COUNT]).with(PROGRAM_COUNTER, ip).with(STACK_POINTER, sp).with(FRAME_POINTER, bp)
    }

    pub(super) fn from_values(values: Values) -> Self {
        Self(values)
    }

    pub(super) fn from_fn(value: impl Fn(Register) -> Option<u64>) -> Self {
        // There are far fewer than 65536.
        Self(std::array::from_fn(|number| value(Register(number as u16))))
    }

    pub(super) fn values(&self) -> &Values {
        &self.0
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

    /// The program counter; 0 where it isn't known: no code is there.
    pub(crate) fn ip(&self) -> u64 {
        self.get(PROGRAM_COUNTER).unwrap_or(0)
    }

    /// The stack pointer; 0 where it isn't known: nothing is further down.
    pub(crate) fn sp(&self) -> u64 {
        self.get(STACK_POINTER).unwrap_or(0)
    }
}
