//! Instructions could not be fetched: a jump to where there is no code.
//!
//! The instruction that jumped is gone. The call before the return address is the one only if its pointer holds the address; a tail call and
//! a return leave other traces.

use super::words::{self, hex};
use super::{Diagnosis, Kind, SEGV_ACCERR, SEGV_MAPERR, certain, checked, likely, sure};
use crate::arch::{self, Arrival, CalledPointer};
use crate::evidence::Evidence;

/// Instructions could not be fetched from where the instruction pointer points.
pub(super) fn fetch(facts: &Evidence, address: u64, code: i32) -> Option<Diagnosis> {
    let registers = facts.registers.as_ref()?;
    let memory = &facts.memory;
    if arch::instruction_pointer(registers) != address {
        // The rest of the instruction lies behind the end of a page; its beginning is no wild address.
        return None;
    }
    if address < arch::LEAST_ADDRESS && memory.at.is_none() {
        return if address == 0 { to_null(facts) } else { near_null(facts, address) };
    }
    match &memory.at {
        Some(at) if code == SEGV_ACCERR && !at.permissions.execute => certain(
            Kind::ExecuteNonExecutable,
            format!("executes memory that is not executable ({}), at {}", words::region(at), hex(address)),
        ),
        None if memory.is_hole() && address >= arch::KERNEL_ADDRESS => {
            certain(Kind::JumpIntoTheWild, format!("jumps to {}, an address of the kernel", hex(address)))
        }
        None if memory.is_hole() && code == SEGV_MAPERR => into_the_wild(facts, address),
        _ => None,
    }
}

/// How the thread came there. Where the last call may have returned, and its caller jumped, nobody knows what that has called.
fn arrival(facts: &Evidence) -> Option<&Arrival> {
    facts.arrival.as_ref().filter(|arrival| facts.is_call_last || !matches!(arrival, Arrival::Behind(_)))
}

fn to_null(facts: &Evidence) -> Option<Diagnosis> {
    let kind = Kind::JumpToNull;
    match arrival(facts) {
        Some(Arrival::CalledThrough(pointer)) => {
            let text = format!("jumps to NULL: a function pointer is 0 ({}){}", pointer.text, calls(facts, pointer));
            sure(facts.is_call_last, kind, text)
        }
        Some(Arrival::CalledByName) => {
            let why = "the code itself calls address 0, as that of a weak function that nobody defines";
            certain(kind, format!("jumps to NULL: {why}{}", caller(facts)))
        }
        Some(Arrival::Behind(_)) => likely(kind, format!("jumps to NULL by {}", tail_call(facts, "0"))),
        Some(Arrival::Returned | Arrival::FromSystemCall) | None => {
            certain(kind, "jumps to NULL: a function pointer or a return address is 0")
        }
    }
}

fn near_null(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    let why = match arrival(facts) {
        Some(Arrival::CalledThrough(pointer)) => {
            format!("a function pointer is broken ({}){}", pointer.text, calls(facts, pointer))
        }
        Some(Arrival::Behind(_)) => {
            return likely(Kind::JumpToNull, format!("jumps to {} by {}", hex(address), tail_call(facts, "near NULL")));
        }
        Some(Arrival::Returned) => "a return address is broken".to_owned(),
        _ => "a function pointer or a return address is broken".to_owned(),
    };
    likely(Kind::JumpToNull, format!("jumps to {}: near NULL, so {why}", hex(address)))
}

fn into_the_wild(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    if let Some(refusal) = facts.refusal {
        return checked::refused(facts, refusal);
    }
    let kind = Kind::JumpIntoTheWild;
    let to = format!("{}, where nothing is mapped", hex(address));
    let before = facts.memory.below.as_ref().filter(|below| below.end == address && below.permissions.execute);
    match arrival(facts) {
        Some(Arrival::CalledThrough(pointer)) => {
            let why = format!("a broken function pointer, or unloaded code ({})", pointer.text);
            sure(facts.is_call_last, kind, format!("jumps to {to}: {why}{}", calls(facts, pointer)))
        }
        Some(Arrival::FromSystemCall) => {
            likely(kind, format!("goes on at {to}, behind a system call: its code was unloaded meanwhile"))
        }
        Some(Arrival::Behind(_)) | None if before.is_some() => {
            let end = before.map(words::region).unwrap_or_default();
            likely(kind, format!("runs on to {to}, behind the end of executable memory ({end})"))
        }
        Some(Arrival::Behind(_)) => {
            let or = "or its code was unloaded while it ran";
            likely(kind, format!("jumps to {to}, by {}, {or}", tail_call(facts, "broken")))
        }
        Some(Arrival::Returned) => likely(kind, format!("returns to {to}: a broken return address, or unloaded code")),
        _ => certain(kind, format!("jumps to {to}: a broken function pointer or return address, or unloaded code")),
    }
}

fn caller(facts: &Evidence) -> &'static str {
    if facts.frames.len() > 1 { "; the caller is the next frame" } else { "" }
}

/// The call through this pointer has jumped. What it called may have set the register to a pointer of its own.
fn calls(facts: &Evidence, pointer: &CalledPointer) -> String {
    let caller = caller(facts);
    let but =
        if pointer.is_kept || caller.is_empty() { "" } else { ", unless what it called has ended in a tail call" };
    format!("{caller}{but}")
}

/// The return address belongs to a call of something else, and the stack is as it was then.
fn tail_call(facts: &Evidence, what: &str) -> String {
    let place = facts.callee.as_ref().map_or_else(
        || "in what the next frame called, or behind that".to_owned(),
        |name| format!("in {name}, which the next frame called, or behind it"),
    );
    format!("a tail call {place}, through a pointer that is {what}")
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{CODE, Case, confidence, far, fault, kind, region, text};
    use super::*;
    use crate::arch::StackTop;

    /// An instruction fetch that failed at `rip`.
    fn fetch_at(code: i32, address: u64) -> Case {
        let mut case = fault(code, address, 0x14);
        case.registers.rip = address;
        case.registers.rsp = 0x7ffd_0000_0008;
        case
    }

    #[test]
    fn a_call_to_null_names_the_caller_where_there_is_one() {
        // call *%rax
        let case = Case { top: top(&[0xff, 0xd0], 0), ..fetch_at(1, 0) };
        assert_eq!(text(&case), "jumps to NULL: a function pointer is 0 (rax is 0)");
        let mut case = case.called(&["?", "call"]);
        let kept = Case { top: top(&[0xff, 0xd3], 0), ..case.clone() };
        assert_eq!(text(&kept), "jumps to NULL: a function pointer is 0 (rbx is 0); the caller is the next frame");
        assert_eq!(
            text(&case),
            "jumps to NULL: a function pointer is 0 (rax is 0); the caller is the next frame, unless what it called has ended in a tail call"
        );
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        case.registers.rax = 8;
        assert!(text(&case).starts_with("jumps to NULL by a tail call"), "that call led elsewhere");
        case.top = None;
        assert_eq!(text(&case), "jumps to NULL: a function pointer or a return address is 0");
    }

    #[test]
    fn a_fetch_elsewhere_than_at_rip_is_not_judged() {
        for address in [0, 0x10_0000] {
            let mut case = fetch_at(1, address).mapped(&[far()]);
            assert!(kind(&case).is_some());
            case.registers.rip = CODE;
            assert_eq!(kind(&case), None);
        }
    }

    #[test]
    fn a_jump_into_the_wild_needs_a_hole() {
        let mut case = fetch_at(1, 0x10_0000);
        assert_eq!(kind(&case), None, "what is mapped there is unknown");
        case.regions = vec![far()];
        assert_eq!(kind(&case), Some(Kind::JumpIntoTheWild));
        case.regions = vec![region(0x10_0000, 0x10_1000, "r-x")];
        assert_eq!(kind(&case), None, "it is code");
    }

    #[test]
    fn data_is_not_executed() {
        let mut case = fetch_at(2, 0x10_0000);
        case.regions = vec![region(0x10_0000, 0x10_1000, "rw-")];
        assert_eq!(text(&case), "executes memory that is not executable (anonymous memory, rw-p), at 0x100000");
        assert_eq!(confidence(&case), Some(Confidence::Certain));
        case.regions = vec![region(0x10_0000, 0x10_1000, "r-x")];
        assert_eq!(kind(&case), None);
    }

    /// On top of the stack is the address behind this call, and `popped` lies below.
    fn top(code: &[u8], popped: u64) -> Option<StackTop> {
        let mut before = [0x90; 8];
        before[8 - code.len()..].copy_from_slice(code);
        Some(StackTop { popped, caller: CODE + 0x100, code: Some(before), slot: None })
    }

    #[test]
    fn a_tail_call_is_behind_a_call_of_something_else() {
        let called = Case { top: top(&[0xe8, 0, 0xff, 0xff, 0xff], 0), callee: Some("dispatch"), ..fetch_at(1, 0) };
        let called = called.called(&["?", "session"]);
        assert_eq!(
            text(&called),
            "jumps to NULL by a tail call in dispatch, which the next frame called, or behind it, through a pointer that is 0"
        );
        assert_eq!(confidence(&called), Some(Confidence::Likely));
        let unnamed = Case { callee: None, ..called.clone() };
        assert!(text(&unnamed).contains("in what the next frame called, or behind that"));
        let wild = Case { top: called.top, ..fetch_at(1, 0x10_0000) }.mapped(&[far()]);
        assert!(text(&wild).contains(", where nothing is mapped, by a tail call"), "{}", text(&wild));
        assert!(text(&wild).ends_with(", or its code was unloaded while it ran"), "{}", text(&wild));
    }

    #[test]
    fn code_that_is_gone_has_not_jumped() {
        // call *%rax, which went to what has made a system call
        let mut back = Case { top: top(&[0xff, 0xd0], 0), ..fetch_at(1, 0x10_0000) }.mapped(&[far()]);
        (back.registers.rcx, back.registers.r11, back.registers.eflags) = (0x10_0000, 0x246, 0x1_0246);
        assert_eq!(
            text(&back),
            "goes on at 0x100000, where nothing is mapped, behind a system call: its code was unloaded meanwhile"
        );
        back.registers.rcx = 0;
        assert!(text(&back).contains(", by a tail call"));
        let code = |end, permissions| back.clone().mapped(&[region(0xf_0000, end, permissions), far()]);
        let end = code(0x10_0000, "r-x");
        assert_eq!(
            text(&end),
            "runs on to 0x100000, where nothing is mapped, behind the end of executable memory (anonymous memory, r-xp)"
        );
        assert_eq!(confidence(&end), Some(Confidence::Likely));
        for other in [code(0xf_f000, "r-x"), code(0x10_0000, "rw-")] {
            assert!(text(&other).contains(", by a tail call"), "{}", text(&other));
        }
        let mut called = end;
        called.registers.rax = 0x10_0000;
        assert!(text(&called).contains("a broken function pointer, or unloaded code (rax is 0x100000)"));
    }

    /// As on arm64, where the return address of a call that has returned stays in its register.
    #[test]
    fn an_old_call_proves_nothing() {
        let old = |case: &Case| Evidence { is_call_last: false, ..case.evidence() };
        let said = |case: &Case| super::super::diagnose(&old(case)).map(|found| (found.text, found.confidence));
        let direct = Case { top: top(&[0xe8, 0, 0xff, 0xff, 0xff], 0), callee: Some("dispatch"), ..fetch_at(1, 0) };
        let what = "jumps to NULL: a function pointer or a return address is 0".to_owned();
        assert_eq!(said(&direct), Some((what, Confidence::Certain)), "the caller may have jumped");
        let through = Case { top: top(&[0xff, 0xd0], 0), ..fetch_at(1, 0) };
        let what = "jumps to NULL: a function pointer is 0 (rax is 0)".to_owned();
        assert_eq!(said(&through), Some((what, Confidence::Likely)), "a zero by chance");
        let wild = Case { top: direct.top, ..fetch_at(1, 0x10_0000) }.mapped(&[far()]);
        assert!(said(&wild).unwrap().0.ends_with("a broken function pointer or return address, or unloaded code"));
    }

    #[test]
    fn a_return_is_none_of_a_caller() {
        let wild = Case { top: top(&[], 0x4141_4141), ..fetch_at(1, 0x4141_4141) }.mapped(&[far()]);
        assert_eq!(
            text(&wild),
            "returns to 0x41414141, where nothing is mapped: a broken return address, or unloaded code"
        );
        let mut null = Case { top: top(&[], 0), ..fetch_at(1, 0) };
        null.registers.rsp = 0x7ffd_0000_0010;
        let what = "jumps to NULL: a function pointer or a return address is 0";
        assert_eq!(text(&null), what, "a jump to the address of a label looks the same");
    }

    #[test]
    fn a_weak_function_is_called_by_name() {
        let distance = (CODE + 0x100).wrapping_neg() as u32;
        let mut case = Case { top: top(&[&[0xe8][..], &distance.to_le_bytes()].concat(), 0), ..fetch_at(1, 0) };
        assert_eq!(text(&case), "jumps to NULL: a function pointer or a return address is 0", "it leads elsewhere");
        case.top = case.top.map(|top| StackTop { caller: 0x10_0000, ..top });
        let near = 0x10_0000u64.wrapping_neg() as u32;
        case.top =
            top(&[&[0xe8][..], &near.to_le_bytes()].concat(), 0).map(|top| StackTop { caller: 0x10_0000, ..top });
        assert!(text(&case).contains("calls address 0, as that of a weak function"));
    }
}
