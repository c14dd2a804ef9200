//! Facts to start a test from, and what is read of their diagnosis.

use super::diagnose;
use super::facts::{Backing, Facts, Mapping, Surroundings};
use crate::probe::abi::fl_registers;

/// Where the code of the cases lies.
pub(super) const CODE: u64 = 0x5555_5555_5000;

/// A signal with registers, all of them 0 but for `rip` and `rsp`.
pub(super) fn facts(signal: u32, code: i32) -> Facts {
    Facts {
        signal,
        si_code: Some(code),
        registers: Some(fl_registers { rip: CODE, rsp: 0x7ffd_0000_1000, ..fl_registers::default() }),
        pid: Some(100),
        pid_in_namespace: Some(100),
        is_main_thread: Some(true),
        ..Facts::default()
    }
}

/// A page fault that ended in SIGSEGV.
pub(super) fn fault(code: i32, address: u64, error_code: u64) -> Facts {
    Facts { fault_address: Some(address), page_fault: Some(error_code), trap_nr: Some(14), ..facts(11, code) }
}

/// All that a NULL dereference has, but for the code.
pub(super) fn sent(signal: u32, code: i32) -> Facts {
    Facts { signal, ..fault(code, 0x18, 4) }
}

/// SIGSEGV by the kernel, of a trap without an address.
pub(super) fn general_protection(code: &[u8]) -> Facts {
    Facts { trap_nr: Some(13), code: Some(code.to_vec()), ..facts(11, 0x80) }
}

pub(super) fn mapping(start: u64, end: u64, permissions: &str) -> Mapping {
    let has = |letter| permissions.contains(letter);
    Mapping {
        start,
        end,
        readable: has('r'),
        writable: has('w'),
        executable: has('x'),
        shared: has('s'),
        backing: Backing::Anonymous,
    }
}

/// Nothing mapped here, something far above.
pub(super) fn hole() -> Surroundings {
    Surroundings { above: Some(mapping(0x5000_0000_0000, 0x5000_0000_1000, "rw-")), ..Surroundings::default() }
}

pub(super) fn name(facts: &Facts) -> Option<&'static str> {
    diagnose(facts).map(|told| told.kind)
}

pub(super) fn confidence(facts: &Facts) -> Option<&'static str> {
    diagnose(facts).map(|told| told.confidence)
}

pub(super) fn text(facts: &Facts) -> String {
    diagnose(facts).map_or_else(|| "nothing".to_owned(), |told| told.text)
}
