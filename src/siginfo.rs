//! The names of signals and of what `siginfo` says about them, as the kernel and signal(7) have them.

use crate::arch::{self, TrapKind};

/// Signals by number, 1 to 31. Source: include/uapi/asm-generic/signal.h, the same on all architectures that faultline may run on.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// Other names that people use for the same signals.
const ALIASES: [(&str, u32); 4] = [("SIGIOT", 6), ("SIGPOLL", 29), ("SIGCLD", 17), ("SIGUNUSED", 31)];

/// The first and the last real-time signal, as programs see them: glibc keeps 32 and 33 to itself.
const REAL_TIME: std::ops::RangeInclusive<u32> = 34..=64;

/// The signals whose default action is to dump core (signal(7)): `faultline crash` watches them by default.
pub(crate) const CORE_SIGNALS: [u32; 10] = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];

/// The numbers that the records' decoding asks for.
pub(crate) const SIGILL: u32 = 4;
/// See [`SIGILL`].
pub(crate) const SIGTRAP: u32 = 5;
/// See [`SIGILL`].
pub(crate) const SIGABRT: u32 = 6;
/// See [`SIGILL`].
pub(crate) const SIGBUS: u32 = 7;
/// See [`SIGILL`].
pub(crate) const SIGFPE: u32 = 8;
/// See [`SIGILL`].
pub(crate) const SIGQUIT: u32 = 3;
/// See [`SIGILL`].
pub(crate) const SIGKILL: u32 = 9;
/// See [`SIGILL`].
pub(crate) const SIGSEGV: u32 = 11;
/// See [`SIGILL`].
pub(crate) const SIGCHLD: u32 = 17;
/// See [`SIGILL`].
pub(crate) const SIGIO: u32 = 29;
/// See [`SIGILL`].
pub(crate) const SIGSYS: u32 = 31;

/// `SIGSEGV` for 11, `SIGRTMIN+3` for 37.
pub(crate) fn signal_name(number: u32) -> String {
    match number {
        1..=31 => NAMES[number as usize - 1].to_owned(),
        34 => "SIGRTMIN".to_owned(),
        64 => "SIGRTMAX".to_owned(),
        35..=49 => format!("SIGRTMIN+{}", number - REAL_TIME.start()),
        50..=63 => format!("SIGRTMAX-{}", REAL_TIME.end() - number),
        _ => format!("SIG{number}"),
    }
}

/// The number of a signal as people type it: `SIGSEGV`, `segv`, `11`, `SIGRTMIN+3`.
///
/// # Errors
/// One line that says what is accepted.
pub(crate) fn parse_signal(text: &str) -> Result<u32, String> {
    let unknown = || format!("no signal is called `{text}`: use a name or a number as `kill -l` lists them");
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=31).contains(&number) || REAL_TIME.contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Ok(index as u32 + 1);
    }
    if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Ok(*number);
    }
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        None if rest.is_empty() => Some(0),
        None => None,
        Some(digits) => digits.parse::<u32>().ok(),
    };
    let number = if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        offset(rest, '+').and_then(|add| REAL_TIME.start().checked_add(add))
    } else if let Some(rest) = name.strip_prefix("SIGRTMAX") {
        offset(rest, '-').and_then(|less| REAL_TIME.end().checked_sub(less))
    } else {
        None
    };
    number.filter(|number| REAL_TIME.contains(number)).ok_or_else(unknown)
}

/// One `si_code`: its number, the kernel's name, a word for machines and a phrase for people.
struct Code(i32, &'static str, &'static str, &'static str);

// Source for the numbers and the tables: include/uapi/asm-generic/siginfo.h.

/// The codes that diagnoses ask for.
pub(crate) const SEGV_MAPERR: i32 = 1;
/// See [`SEGV_MAPERR`].
pub(crate) const SEGV_ACCERR: i32 = 2;
/// See [`SEGV_MAPERR`].
pub(crate) const SEGV_PKUERR: i32 = 4;
/// See [`SEGV_MAPERR`].
pub(crate) const SEGV_MTEAERR: i32 = 8;
/// See [`SEGV_MAPERR`].
pub(crate) const SEGV_MTESERR: i32 = 9;
/// See [`SEGV_MAPERR`].
pub(crate) const SEGV_CPERR: i32 = 10;
/// See [`SEGV_MAPERR`].
pub(crate) const SYS_SECCOMP: i32 = 1;
pub(crate) use libc::{BUS_ADRALN, BUS_ADRERR, BUS_MCEERR_AO, BUS_MCEERR_AR, SI_KERNEL, SI_TKILL};

const SEGV: [Code; 10] = [
    Code(SEGV_MAPERR, "SEGV_MAPERR", "map_error", "Address not mapped"),
    Code(SEGV_ACCERR, "SEGV_ACCERR", "access_error", "Access violation"),
    Code(3, "SEGV_BNDERR", "bounds_error", "Failed address bound checks"),
    Code(SEGV_PKUERR, "SEGV_PKUERR", "protection_key_error", "Denied by a memory protection key"),
    Code(5, "SEGV_ACCADI", "adi_not_enabled", "ADI not enabled for the mapped object"),
    Code(6, "SEGV_ADIDERR", "adi_disrupting_error", "Disrupting MCD error"),
    Code(7, "SEGV_ADIPERR", "adi_precise_error", "Precise MCD exception"),
    Code(SEGV_MTEAERR, "SEGV_MTEAERR", "memory_tag_asynchronous_error", "Asynchronous memory tag fault"),
    Code(SEGV_MTESERR, "SEGV_MTESERR", "memory_tag_synchronous_error", "Synchronous memory tag fault"),
    Code(SEGV_CPERR, "SEGV_CPERR", "control_protection_error", "Control protection fault"),
];

const BUS: [Code; 5] = [
    Code(BUS_ADRALN, "BUS_ADRALN", "alignment_error", "Invalid address alignment"),
    Code(BUS_ADRERR, "BUS_ADRERR", "address_error", "Nonexistent physical address"),
    Code(3, "BUS_OBJERR", "object_error", "Hardware error of the object"),
    Code(BUS_MCEERR_AR, "BUS_MCEERR_AR", "memory_error_consumed", "Hardware memory error, consumed"),
    Code(BUS_MCEERR_AO, "BUS_MCEERR_AO", "memory_error_found", "Hardware memory error, found but not consumed"),
];

const ILL: [Code; 11] = [
    Code(1, "ILL_ILLOPC", "illegal_opcode", "Illegal opcode"),
    Code(2, "ILL_ILLOPN", "illegal_operand", "Illegal operand"),
    Code(3, "ILL_ILLADR", "illegal_addressing_mode", "Illegal addressing mode"),
    Code(4, "ILL_ILLTRP", "illegal_trap", "Illegal trap"),
    Code(5, "ILL_PRVOPC", "privileged_opcode", "Privileged opcode"),
    Code(6, "ILL_PRVREG", "privileged_register", "Privileged register"),
    Code(7, "ILL_COPROC", "coprocessor_error", "Coprocessor error"),
    Code(8, "ILL_BADSTK", "stack_error", "Internal stack error"),
    Code(9, "ILL_BADIADDR", "unimplemented_instruction_address", "Unimplemented instruction address"),
    Code(10, "ILL_BREAK", "illegal_break", "Illegal break"),
    Code(11, "ILL_BNDMOD", "bundle_update", "Bundle update in progress"),
];

const FPE: [Code; 15] = [
    Code(1, "FPE_INTDIV", "integer_divide_by_zero", "Integer division by zero"),
    Code(2, "FPE_INTOVF", "integer_overflow", "Integer overflow"),
    Code(3, "FPE_FLTDIV", "float_divide_by_zero", "Floating-point division by zero"),
    Code(4, "FPE_FLTOVF", "float_overflow", "Floating-point overflow"),
    Code(5, "FPE_FLTUND", "float_underflow", "Floating-point underflow"),
    Code(6, "FPE_FLTRES", "float_inexact_result", "Floating-point inexact result"),
    Code(7, "FPE_FLTINV", "float_invalid_operation", "Invalid floating-point operation"),
    Code(8, "FPE_FLTSUB", "subscript_out_of_range", "Subscript out of range"),
    Code(9, "FPE_DECOVF", "decimal_overflow", "Decimal overflow"),
    Code(10, "FPE_DECDIV", "decimal_divide_by_zero", "Decimal division by zero"),
    Code(11, "FPE_DECERR", "decimal_packed_error", "Packed decimal error"),
    Code(12, "FPE_INVASC", "invalid_ascii_digit", "Invalid ASCII digit"),
    Code(13, "FPE_INVDEC", "invalid_decimal_digit", "Invalid decimal digit"),
    Code(14, "FPE_FLTUNK", "float_unknown", "Undiagnosed floating-point exception"),
    Code(15, "FPE_CONDTRAP", "trap_on_condition", "Trap on condition"),
];

const TRAP: [Code; 6] = [
    Code(1, "TRAP_BRKPT", BREAKPOINT, "Breakpoint"),
    Code(2, "TRAP_TRACE", "trace_trap", "Single step or trace"),
    Code(3, "TRAP_BRANCH", "branch_trap", "Taken branch"),
    Code(4, "TRAP_HWBKPT", "hardware_breakpoint", "Hardware breakpoint or watchpoint"),
    Code(5, "TRAP_UNK", "unknown_trap", "Undiagnosed trap"),
    Code(6, "TRAP_PERF", "perf_event", "Signal of a perf event"),
];

const SYS: [Code; 2] = [
    Code(SYS_SECCOMP, "SYS_SECCOMP", "seccomp", "System call refused by seccomp"),
    Code(2, "SYS_USER_DISPATCH", "syscall_user_dispatch", "System call user dispatch"),
];

const CLD: [Code; 6] = [
    Code(1, "CLD_EXITED", "child_exited", "Child exited"),
    Code(2, "CLD_KILLED", "child_killed", "Child was killed"),
    Code(3, "CLD_DUMPED", "child_dumped", "Child dumped core"),
    Code(4, "CLD_TRAPPED", "child_trapped", "Traced child has trapped"),
    Code(5, "CLD_STOPPED", "child_stopped", "Child has stopped"),
    Code(6, "CLD_CONTINUED", "child_continued", "Stopped child has continued"),
];

const POLL: [Code; 6] = [
    Code(1, "POLL_IN", "data_input", "Data input available"),
    Code(2, "POLL_OUT", "output_buffers", "Output buffers available"),
    Code(3, "POLL_MSG", "input_message", "Input message available"),
    Code(4, "POLL_ERR", "io_error", "I/O error"),
    Code(5, "POLL_PRI", "priority_input", "High priority input available"),
    Code(6, "POLL_HUP", "disconnected", "Device disconnected"),
];

/// Codes that any signal may have. The word is for what a process did, and never a fault's.
const ANY: [Code; 10] = [
    Code(0, "SI_USER", "sent", "Sent by kill"),
    Code(SI_KERNEL, "SI_KERNEL", "kernel", "Raised by the kernel"),
    Code(-1, "SI_QUEUE", "sent", "Sent by sigqueue"),
    Code(-2, "SI_TIMER", "timer", "A timer expired"),
    Code(-3, "SI_MESGQ", "message_queue", "A message queue has changed"),
    Code(-4, "SI_ASYNCIO", "asynchronous_io", "Asynchronous I/O has finished"),
    Code(-5, "SI_SIGIO", "queued_io", "Queued SIGIO"),
    Code(SI_TKILL, "SI_TKILL", "sent", "Sent by tkill, tgkill or raise"),
    Code(-7, "SI_DETHREAD", "exec_killed_thread", "Sent by an exec to the other threads"),
    Code(-60, "SI_ASYNCNL", "name_lookup", "An asynchronous name look-up has finished"),
];

fn find(signal: u32, code: i32) -> Option<&'static Code> {
    let own: &'static [Code] = match signal {
        SIGSEGV => &SEGV,
        SIGBUS => &BUS,
        SIGILL => &ILL,
        SIGFPE => &FPE,
        SIGTRAP => &TRAP,
        SIGSYS => &SYS,
        SIGCHLD => &CLD,
        SIGIO => &POLL,
        _ => &[],
    };
    own.iter().chain(ANY.iter()).find(|known| known.0 == code)
}

/// The kernel's name of a code: `SEGV_MAPERR`, `SI_TKILL`; the number where it has none.
pub(crate) fn code_name(signal: u32, code: i32) -> String {
    find(signal, code).map_or_else(|| code.to_string(), |known| known.1.to_owned())
}

/// Is this a code's name? False: it is the number of a code that has none, as a process that sends a signal to itself may make up.
pub(crate) fn is_code_name(code: &str) -> bool {
    code.starts_with(|c: char| c.is_ascii_uppercase())
}

/// What the code means, for people. The word for the fault says what SI_KERNEL leaves open; `None` means that there was none.
pub(crate) fn code_text(signal: u32, code: i32, fault: Option<&str>) -> String {
    let by_trap = |known: &&(&str, &str)| code == SI_KERNEL && fault == Some(known.0);
    match KERNEL_FAULTS.iter().find(by_trap) {
        Some((_, text)) => (*text).to_owned(),
        None => find(signal, code).map_or_else(|| format!("Code {code}"), |known| known.3.to_owned()),
    }
}

/// The word for a fault; `None` means that there was no fault: a process, a timer or the like sent the signal.
pub(crate) fn fault_type(signal: u32, code: i32, trap_nr: Option<u64>) -> Option<&'static str> {
    if code <= 0 || !matches!(signal, SIGSEGV | SIGBUS | SIGILL | SIGFPE | SIGTRAP | SIGSYS) {
        return None;
    }
    match kernel_fault(signal, code, trap_nr) {
        Some(word) => Some(word),
        None => find(signal, code).map(|known| known.2),
    }
}

const GENERAL_PROTECTION: &str = "general_protection";
const BREAKPOINT: &str = "breakpoint";

/// Faults that the kernel reports as SI_KERNEL, without an address: a word for machines and a phrase for people.
const KERNEL_FAULTS: [(&str, &str); 2] =
    [(GENERAL_PROTECTION, "General protection fault"), (BREAKPOINT, "Breakpoint instruction")];

/// Which of these it is: the trap says so.
fn kernel_fault(signal: u32, code: i32, trap_nr: Option<u64>) -> Option<&'static str> {
    match (signal, code, arch::trap(trap_nr?)?) {
        (SIGSEGV, SI_KERNEL, TrapKind::GeneralProtection) => Some(GENERAL_PROTECTION),
        (SIGTRAP, SI_KERNEL, TrapKind::Breakpoint) => Some(BREAKPOINT),
        _ => None,
    }
}

/// The signal's name in the first line of the text.
pub(crate) fn title(signal: u32) -> String {
    match signal {
        3 => "QUIT".to_owned(),
        SIGILL => "ILLEGAL INSTRUCTION".to_owned(),
        SIGTRAP => "TRAP".to_owned(),
        6 => "ABORT".to_owned(),
        SIGBUS => "BUS ERROR".to_owned(),
        SIGFPE => "ARITHMETIC EXCEPTION".to_owned(),
        SIGSEGV => "SEGFAULT".to_owned(),
        24 => "CPU TIME LIMIT".to_owned(),
        25 => "FILE SIZE LIMIT".to_owned(),
        SIGSYS => "BAD SYSTEM CALL".to_owned(),
        other => signal_name(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_many_spellings() {
        for text in ["SIGSEGV", "sigsegv", "SEGV", "segv", "11"] {
            assert_eq!(parse_signal(text), Ok(11), "{text}");
        }
        assert_eq!(parse_signal("SIGIOT"), Ok(6));
        assert_eq!(parse_signal("SIGRTMIN"), Ok(34));
        assert_eq!(parse_signal("RTMIN+3"), Ok(37));
        assert_eq!(parse_signal("SIGRTMAX-1"), Ok(63));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "32", "33", "65", "-9", "SIGFOO", "SIGRTMIN+31", "SIGRTMIN-1", "SIGRTMAX-31", "SIGRTMINX"]
        {
            assert!(parse_signal(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn every_name_is_read_back() {
        for number in (1..=31).chain(REAL_TIME) {
            assert_eq!(parse_signal(&signal_name(number)), Ok(number));
        }
    }

    #[test]
    fn codes_belong_to_their_signal() {
        assert_eq!(code_name(SIGSEGV, 1), "SEGV_MAPERR");
        assert_eq!(code_name(SIGBUS, 2), "BUS_ADRERR");
        assert_eq!(code_name(SIGSYS, 1), "SYS_SECCOMP");
        assert_eq!(code_name(6, -6), "SI_TKILL");
        assert_eq!(code_name(SIGSEGV, 77), "77");
    }

    #[test]
    fn only_a_fault_has_a_fault_type() {
        assert_eq!(fault_type(SIGSEGV, 2, Some(14)), Some("access_error"));
        assert_eq!(fault_type(SIGSEGV, 0x80, Some(13)), Some("general_protection"));
        assert_eq!(fault_type(SIGSEGV, 0x80, None), Some("kernel"));
        assert_eq!(fault_type(SIGTRAP, 0x80, Some(3)), Some("breakpoint"));
        assert_eq!(fault_type(SIGSEGV, 0, Some(14)), None);
        assert_eq!(fault_type(6, -6, Some(0)), None);
        assert_eq!(fault_type(3, 0x80, Some(14)), None, "Ctrl-\\ at a terminal");
    }
}
