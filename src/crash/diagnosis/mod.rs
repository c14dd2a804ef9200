//! The likely cause of a crash, in one sentence, from registers, mappings, the page fault's error code and the instruction.
//!
//! Pure: [`Facts`] in, a diagnosis or none out. A wrong cause is worse than none, so a room of this folder names one only
//! where its facts agree with each other: a register, for one, only if the instruction's address, computed from it, is the
//! address that faulted. What a process sent is never taken for a fault. x86_64 only, as [`crate::arch`].
//!
//! The texts hold names from the process (functions, files, threads) as they are: escape them for a terminal.

mod abort;
mod arithmetic;
mod bus;
#[cfg(test)]
mod cases;
mod facts;
mod illegal;
mod instruction;
mod memory;
mod null;
mod protection;
mod stack;

pub use facts::{Backing, Facts, Mapping, Surroundings, SystemCall};

use super::record::Diagnosis;
use crate::arch;
use crate::siginfo::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

const SI_KERNEL: i32 = 0x80;
const SI_TKILL: i32 = -6;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const SEGV_PKUERR: i32 = 4;
const SEGV_CPERR: i32 = 10;
const SYS_SECCOMP: i32 = 1;
// arch/x86/include/asm/trapnr.h
const TRAP_STACK_SEGMENT: u64 = 12;
/// Of x86_64.
const PAGE: u64 = 4096;

/// The cause that the facts prove or make likely; None: not sure of any.
pub fn diagnose(facts: &Facts) -> Option<Diagnosis> {
    let code = facts.si_code?;
    match facts.signal {
        SIGABRT if code == SI_TKILL => abort::diagnose(facts),
        // Sent by a process, a timer or the like.
        _ if code <= 0 => None,
        SIGSEGV => segmentation_fault(facts, code),
        SIGBUS => bus::diagnose(facts, code),
        SIGFPE => arithmetic::diagnose(facts, code),
        SIGILL => illegal::diagnose(facts),
        SIGTRAP => illegal::breakpoint(facts, code),
        SIGSYS if code == SYS_SECCOMP => seccomp(facts),
        _ => None,
    }
}

fn segmentation_fault(facts: &Facts, code: i32) -> Option<Diagnosis> {
    match code {
        SI_KERNEL => match facts.trap_nr {
            Some(arch::TRAP_GENERAL_PROTECTION) => protection::diagnose(facts),
            None if facts.no_trap => stack::signal_frame(facts),
            _ => None,
        },
        SEGV_MAPERR | SEGV_ACCERR => memory::diagnose(facts, code),
        SEGV_PKUERR => memory::protection_key(facts),
        SEGV_CPERR => protection::shadow_stack(facts),
        _ => None,
    }
}

fn seccomp(facts: &Facts) -> Option<Diagnosis> {
    let call = facts.system_call.as_ref()?;
    let text = match &call.name {
        Some(name) => format!("makes the system call {name} ({}), which its seccomp filter refuses", call.number),
        None => format!("makes the system call number {}, which its seccomp filter refuses", call.number),
    };
    certain("seccomp", text)
}

/// The facts prove it.
fn certain(kind: &'static str, text: impl Into<String>) -> Option<Diagnosis> {
    Some(Diagnosis { kind, text: text.into(), confidence: "certain" })
}

/// The facts agree with it and with nothing else that is usual.
fn likely(kind: &'static str, text: impl Into<String>) -> Option<Diagnosis> {
    Some(Diagnosis { kind, text: text.into(), confidence: "likely" })
}

/// [`certain`] or [`likely`].
fn sure(is_certain: bool, kind: &'static str, text: impl Into<String>) -> Option<Diagnosis> {
    if is_certain { certain(kind, text) } else { likely(kind, text) }
}

#[cfg(test)]
mod tests {
    use super::cases::{facts, name, sent};
    use super::*;

    #[test]
    fn seccomp_names_the_call() {
        let mut facts = facts(SIGSYS, SYS_SECCOMP);
        assert_eq!(name(&facts), None, "which call it was is unknown");
        facts.system_call = Some(SystemCall { number: 110, name: Some("getppid".to_owned()) });
        let told = diagnose(&facts).unwrap();
        assert_eq!(told.kind, "seccomp");
        assert_eq!(told.text, "makes the system call getppid (110), which its seccomp filter refuses");
        facts.system_call = Some(SystemCall { number: 110, name: None });
        assert!(diagnose(&facts).unwrap().text.contains("number 110"));
    }

    #[test]
    fn what_was_sent_is_no_fault() {
        for signal in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS] {
            for code in [0, -1, SI_TKILL] {
                assert_eq!(name(&sent(signal, code)), None, "{signal} {code}");
            }
        }
        // The same facts, but for the code, are a fault.
        assert_eq!(name(&Facts { si_code: Some(SEGV_MAPERR), ..sent(SIGSEGV, 0) }), Some("null_dereference"));
    }

    /// Facts may come from a process that was made to break this: any numbers, any bytes, and mappings that hold nothing.
    #[test]
    fn no_facts_break_it() {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let numbers = [0, 1, 8, 0x18, 0x1000, 0x1008, 0x2000, 1 << 47, 1 << 63, u64::MAX - 7, u64::MAX];
        let (mut told, mut untold) = (0, 0);
        for _ in 0..200_000 {
            let mut pick = || numbers[next() as usize % numbers.len()];
            let mut place = || {
                let permissions = ["---", "r--", "rw-", "r-x"][(pick() % 4) as usize];
                let at = cases::mapping(pick(), pick(), permissions);
                let backing =
                    [Backing::Anonymous, Backing::MainStack, Backing::File(None)][(pick() % 3) as usize].clone();
                (pick() != 0).then_some(Mapping { backing, ..at })
            };
            let memory = Surroundings { at: place(), below: place(), above: place() };
            let stack = Surroundings { at: place(), below: place(), above: place() };
            let mut registers = crate::probe::abi::fl_registers::default();
            (registers.rip, registers.rsp, registers.rax, registers.rcx) = (pick(), pick(), pick(), pick());
            (registers.rdx, registers.rdi, registers.rbx, registers.rbp) = (pick(), pick(), pick(), pick());
            let (address, error_code, limit) = (pick(), pick(), pick());
            let signal = [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT][next() as usize % 6];
            let facts = Facts {
                si_code: Some([1, 2, 4, SI_KERNEL, SI_TKILL][next() as usize % 5]),
                trap_nr: [Some(3), Some(12), Some(13), None][next() as usize % 4],
                no_trap: next() % 2 == 0,
                fault_address: (next() % 8 != 0).then_some(address),
                page_fault: Some(error_code),
                registers: Some(registers),
                code: Some((0..next() % 17).map(|_| next() as u8).collect()),
                stack_limit: (next() % 2 == 0).then_some(limit),
                sender_pid: Some(100),
                memory,
                stack,
                ..facts(signal, 0)
            };
            match diagnose(&facts) {
                Some(found) => {
                    assert!(!found.text.is_empty() && !found.text.contains('\n'), "{found:?}");
                    told += 1;
                }
                None => untold += 1,
            }
        }
        assert!(told > 1000 && untold > 1000, "{told} {untold}");
    }

    #[test]
    fn without_siginfo_nothing_is_known() {
        assert_eq!(name(&Facts { si_code: None, ..sent(SIGSEGV, 0) }), None);
    }
}
