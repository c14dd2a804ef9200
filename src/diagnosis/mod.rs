//! The likely cause of a crash, in one sentence, from registers, mappings, the page fault's error code and the instruction.
//!
//! Pure: [`Evidence`] in, a diagnosis or none out. A wrong cause is worse than none, so a file of this folder names one only
//! where its facts agree with each other: a register, for one, only if the instruction's address, computed from it, is the
//! address that faulted. What a process sent is never taken for a fault.
//!
//! The texts hold names from the process (functions, files, threads) as they are: escape them for a terminal.

mod abort;
mod arithmetic;
mod bus;
#[cfg(test)]
mod cases;
mod cause;
mod checked;
mod illegal;
mod instruction;
mod jump;
mod kind;
mod libc;
mod memory;
mod null;
mod protection;
mod read_only;
pub(crate) mod sent;
#[cfg(test)]
mod sentences;
mod stack;
mod terminate;
mod trace;
pub(crate) mod truncated;
mod words;

pub use kind::Confidence;
pub(crate) use kind::{Diagnosis, Kind};

use crate::arch::{self, TrapKind};
use crate::evidence::{Evidence, SystemCall, Trap};
use crate::siginfo::{SEGV_ACCERR, SEGV_CPERR, SEGV_MAPERR, SEGV_MTEAERR, SEGV_MTESERR, SEGV_PKUERR};
use crate::siginfo::{SI_KERNEL, SI_TKILL, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, SYS_SECCOMP};

/// The cause that the facts prove or make likely; `None` means: not sure of any.
pub(crate) fn diagnose(facts: &Evidence) -> Option<Diagnosis> {
    cause::explain(facts, sent::diagnose(facts).or_else(|| by_signal(facts)))
}

/// The facts without a message of libc's that is older than this end.
pub(crate) fn without_older_message(facts: Evidence) -> Evidence {
    let is_of_now = libc::message_of_now(&facts, &trace::Trace::new(&facts)).is_some();
    Evidence { abort_message: facts.abort_message.clone().filter(|_| is_of_now), ..facts }
}

/// What the signal says, and the memory and the instruction that it is about.
fn by_signal(facts: &Evidence) -> Option<Diagnosis> {
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

fn segmentation_fault(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    match code {
        SI_KERNEL if facts.trap == Trap::Absent => stack::signal_frame(facts),
        SI_KERNEL if trap(facts) == Some(TrapKind::GeneralProtection) => protection::diagnose(facts),
        SI_KERNEL if facts.trap == Trap::Unknown => protection::halted(facts).or_else(|| protection::jumped(facts)),
        SEGV_MAPERR | SEGV_ACCERR => memory::diagnose(facts, code),
        SEGV_PKUERR => memory::protection_key(facts),
        SEGV_CPERR => protection::shadow_stack(facts),
        SEGV_MTESERR => checked::tag(facts),
        SEGV_MTEAERR => checked::tag_before(),
        _ => None,
    }
}

/// The trap that the signal is for, if it is one that decides something.
fn trap(facts: &Evidence) -> Option<TrapKind> {
    match facts.trap {
        Trap::Number(number) => arch::trap(number),
        Trap::Absent | Trap::Unknown => None,
    }
}

fn seccomp(facts: &Evidence) -> Option<Diagnosis> {
    let call = facts.system_call?;
    let text = match name_of(call) {
        Some(name) => format!("makes the system call {name} ({}), which its seccomp filter refuses", call.number),
        None => format!("makes the system call number {}, which its seccomp filter refuses", call.number),
    };
    certain(
        Kind::Seccomp,
        match facts.ends_thread {
            true => {
                format!("seccomp has ended the thread {} alone, and its process goes on: it {text}", facts.thread.name)
            }
            false => text,
        },
    )
}

/// The call's name; `None` means that it is none, or of another architecture's table.
fn name_of(call: SystemCall) -> Option<&'static str> {
    let number = usize::try_from(call.number).ok().filter(|_| call.arch == arch::syscall::AUDIT_ARCH)?;
    syscalls::Sysno::new(number).map(|call| call.name())
}

/// The facts prove it.
fn certain(kind: Kind, text: impl Into<String>) -> Option<Diagnosis> {
    sure(true, kind, text)
}

/// The facts agree with it and with nothing else that is usual.
fn likely(kind: Kind, text: impl Into<String>) -> Option<Diagnosis> {
    sure(false, kind, text)
}

/// [`certain`] or [`likely`].
fn sure(is_certain: bool, kind: Kind, text: impl Into<String>) -> Option<Diagnosis> {
    Some(Diagnosis { kind, text: text.into(), confidence: Confidence::certain_if(is_certain) })
}

#[cfg(test)]
mod tests {
    use super::cases::{Case, after_fault, kind, signal};
    use super::*;
    use crate::arch::Registers;
    use crate::evidence::{Backing, File, Region, Sender, Surroundings};

    #[test]
    fn seccomp_names_the_call() {
        let case = Case { system_call: (110, arch::syscall::AUDIT_ARCH), ..signal(SIGSYS, SYS_SECCOMP) };
        let found = diagnose(&case.evidence()).unwrap();
        assert_eq!(found.kind, Kind::Seccomp);
        assert_eq!(found.text, "makes the system call getppid (110), which its seccomp filter refuses");
        let alone = Evidence { ends_thread: true, ..case.evidence() };
        assert_eq!(
            diagnose(&alone).unwrap().text,
            "seccomp has ended the thread main alone, and its process goes on: it makes the system call getppid (110), which its \
             seccomp filter refuses"
        );
        let other = Case { system_call: (110, 0x4000_0003), ..case };
        assert!(diagnose(&other.evidence()).unwrap().text.contains("number 110"));
    }

    #[test]
    fn calls_have_names_in_their_own_table_only() {
        let name = |number, arch| name_of(SystemCall { number, arch, address: 0 });
        assert_eq!(name(110, arch::syscall::AUDIT_ARCH), Some("getppid"));
        assert_eq!(name(110, 0x4000_0003), None, "i386 has another call there");
        assert_eq!(name(-1, arch::syscall::AUDIT_ARCH), None);
        assert_eq!(name(100_000, arch::syscall::AUDIT_ARCH), None);
    }

    #[test]
    fn what_was_sent_is_no_fault() {
        for number in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS] {
            for code in [0, -1, SI_TKILL] {
                assert_eq!(kind(&after_fault(number, code)), None, "{number} {code}");
            }
        }
        // The same thread, but for the code, has faulted.
        assert_eq!(kind(&after_fault(SIGSEGV, SEGV_MAPERR)), Some(Kind::NullDereference));
    }

    #[test]
    fn a_kind_is_one_word() {
        let word = serde_json::to_value(Kind::FloatingPointDivideByZero).unwrap();
        assert_eq!(
            (word, serde_json::to_value(Confidence::Likely).unwrap()),
            ("floating_point_divide_by_zero".into(), "likely".into())
        );
    }

    /// Evidence may come from a process that was made to break this: any numbers, any bytes, and mappings that hold nothing.
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
                let at = cases::region(pick(), pick(), permissions);
                let backing = [Backing::Anonymous, Backing::MainStack, Backing::File(File::default())];
                (pick() != 0).then_some(Region { backing: backing[(pick() % 3) as usize].clone(), ..at })
            };
            let memory = Surroundings { at: place(), below: place(), above: place() };
            let stack = Surroundings { at: place(), below: place(), above: place() };
            let mut registers = Registers::default();
            (registers.rip, registers.rsp, registers.rax, registers.rcx) = (pick(), pick(), pick(), pick());
            (registers.rdx, registers.rdi, registers.rbx, registers.rbp) = (pick(), pick(), pick(), pick());
            let (address, error_code, limit) = (pick(), pick(), pick());
            let evidence = Evidence {
                signal: [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT][next() as usize % 6],
                si_code: Some([1, 2, 4, SI_KERNEL, SI_TKILL][next() as usize % 5]),
                trap: [Trap::Number(3), Trap::Number(12), Trap::Number(13), Trap::Absent, Trap::Unknown]
                    [next() as usize % 5],
                fault_address: (next() % 8 != 0).then_some(address),
                page_fault: Some(error_code),
                registers: Some(registers),
                code: Some((0..next() % 17).map(|_| next() as u8).collect()),
                stack_limit: (next() % 2 == 0).then_some(limit),
                sender: Some(Sender::Itself),
                memory,
                stack,
                ..Evidence::default()
            };
            match diagnose(&evidence) {
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
        let evidence = after_fault(SIGSEGV, SEGV_MAPERR).evidence();
        assert!(diagnose(&evidence).is_some());
        assert_eq!(diagnose(&Evidence { si_code: None, ..evidence }), None);
    }
}
