//! Unwinding in 32-bit processes: there is none.

use gimli::Register;

use super::unwind::Values;

/// e_machine in their ELF files. `None` means that they are not unwound.
pub(crate) const ELF_MACHINE: Option<u16> = None;

/// Our number of a register by theirs.
pub(crate) fn own(_: Register) -> Option<Register> {
    None
}

/// Their number of a register by ours.
pub(crate) fn theirs(_: Register) -> Option<Register> {
    None
}

/// A function keeps this register, by our number, for its caller where no rule says otherwise.
pub(crate) fn is_kept(_: Register) -> bool {
    false
}

/// The registers of the caller of what the vDSO calls the kernel by.
pub(crate) fn caller_of_vdso(_: &Values, _: impl Fn(u64) -> Option<u64>) -> Option<Values> {
    None
}
