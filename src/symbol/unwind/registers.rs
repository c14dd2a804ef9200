//! The registers of one frame, as far as they are known.

use gimli::Register;

use super::machine::Machine;
use crate::arch::unwind::{COUNT, FRAME_POINTER, PROGRAM_COUNTER, STACK_POINTER, Values};

/// Registers under DWARF's numbers, as [`crate::arch::unwind`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    values: Values,
    machine: Machine,
}

impl Registers {
    /// All are known.
    pub(crate) fn new(values: [u64; COUNT]) -> Self {
        Self { values: values.map(Some), machine: Machine::Native }
    }

    /// The same of this kind of process.
    pub(crate) fn of(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }

    /// The frame that a frame pointer leads to.
    pub(super) fn of_frame(ip: u64, sp: u64, bp: u64) -> Self {
        let none = Self { values: [None; COUNT], machine: Machine::Native };
        none.with(PROGRAM_COUNTER, ip).with(STACK_POINTER, sp).with(FRAME_POINTER, bp)
    }

    /// Other values of the same process.
    pub(super) fn with_values(&self, values: Values) -> Self {
        Self { values, ..*self }
    }

    /// The same, each by its number.
    pub(super) fn with_each(&self, value: impl Fn(Register) -> Option<u64>) -> Self {
        // There are far fewer than 65536.
        self.with_values(std::array::from_fn(|number| value(Register(number as u16))))
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    pub(super) fn machine(&self) -> Machine {
        self.machine
    }

    pub(super) fn get(&self, register: Register) -> Option<u64> {
        self.values.get(usize::from(register.0)).copied().flatten()
    }

    pub(super) fn with(mut self, register: Register, value: u64) -> Self {
        if let Some(known) = self.values.get_mut(usize::from(register.0)) {
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
