//! A C library that gives up: its message says why, and where it isn't known, its functions in the stack trace. The function that is named is
//! the first one outside of libc.

use super::trace::Trace;
use super::{Diagnosis, Kind, certain, likely, sure};
use crate::arch;
use crate::evidence::Evidence;
use crate::runtime::glibc::{self, AbortReason};
use crate::runtime::{self, is_libc, musl};

pub(super) fn diagnose(facts: &Evidence, trace: &Trace<'_>) -> Option<Diagnosis> {
    let message = message_of_now(facts, trace).map(one_line);
    let said = message.as_deref().map(glibc::said);
    let shown = shown(trace);
    // Frames say more of what a message says of several.
    let reason = match (said, shown) {
        (Some(AbortReason::BufferTooSmall), Some((AbortReason::DescriptorTooLarge, _))) => {
            AbortReason::DescriptorTooLarge
        }
        (Some(reason), _) => reason,
        (None, Some((reason, _))) => reason,
        (None, None) => return None,
    };
    let is_certain = said.is_some() || shown.is_some_and(|(_, is_certain)| is_certain);
    let (kind, text) = sentence(trace, reason, message.is_some());
    let text = message.map_or_else(|| text.clone(), |message| format!("{message}: {text}"));
    sure(is_certain, kind, text)
}

/// What libc said before this end. A program may have recovered from an abort of which it was said: the message stands there until another one
/// replaces it.
pub(super) fn message_of_now<'a>(facts: &'a Evidence, trace: &Trace<'_>) -> Option<&'a str> {
    facts.abort_message.as_deref().filter(|_| is_of_now(trace))
}

/// Has libc called abort()? Or, where that is not in the stack trace, may a function without a name have done so?
fn is_of_now(trace: &Trace<'_>) -> bool {
    let Some(abort) = trace.find(|name| name == "abort") else {
        let own = (0..trace.len()).find(|&frame| trace.is_outside(frame) == Some(true));
        return own.is_none_or(|own| (0..own).any(|frame| trace.name(frame).is_none()));
    };
    let caller = Some(abort + 1).filter(|&caller| caller < trace.len());
    caller.is_none_or(|caller| {
        let is_libcs = trace.module(caller).map(is_libc);
        is_libcs.unwrap_or_else(|| trace.name(caller).is_none_or(|name| name.starts_with("__")))
    })
}

fn one_line(message: &str) -> String {
    message.trim_end_matches(['\n', '.']).replace(['\n', '\r'], " ")
}

/// What the frames show, and whether they prove it.
fn shown(trace: &Trace<'_>) -> Option<(AbortReason, bool)> {
    if trace.find(glibc::is_stack_check).is_some() {
        return Some((AbortReason::StackSmashed, true));
    }
    let last = trace.find_libcs(glibc::is_fortify).map_or(0, |frame| frame + 1);
    if last > 0 {
        let checked = trace.find_from(last, glibc::is_checked).and_then(|frame| trace.name(frame));
        // In a static program the function that checks may have another name: memcpy().
        let unnamed = || match trace.find(glibc::is_size_check) {
            Some(_) => (AbortReason::BufferTooSmall, true),
            None => (AbortReason::CheckFailed, false),
        };
        return Some(checked.map_or_else(unnamed, |name| (glibc::checks(name), true)));
    }
    if let Some(is_certain) = heap(trace) {
        return Some((AbortReason::HeapDamaged, is_certain));
    }
    if trace.find(runtime::is_assertion).is_some() {
        return Some((AbortReason::AssertionFailed, true));
    }
    trace.find_libcs(|name| name == "__libc_fatal").map(|_| (AbortReason::GaveUp, true))
}

/// Has libc's own malloc found the heap damaged? `Some(true)` means that its functions prove it.
fn heap(trace: &Trace<'_>) -> Option<bool> {
    if let Some(frame) = trace.find(glibc::is_malloc_check) {
        // A static program has libc's functions in its own file; a program's own function of that name is not called by these.
        let is_libcs = trace.is_outside(frame) != Some(true) || trace.find_before(frame, glibc::is_message).is_some();
        return is_libcs.then_some(true);
    }
    // In a stripped libc the frames between have no names: abort() below free() is a check of malloc.
    let raised = trace.find(runtime::is_abort).or_else(|| trace.find(runtime::is_assertion))?;
    let is_passed = |name: &str| runtime::is_abort(name) || runtime::is_assertion(name);
    let next = (raised..trace.len()).find(|&frame| trace.name(frame).is_some_and(|name| !is_passed(name)))?;
    let is_libcs = (raised..=next).all(|frame| trace.is_outside(frame) != Some(true));
    (is_libcs && trace.name(next).is_some_and(glibc::is_malloc)).then_some(false)
}

/// What it means, and for which function of the program. `is_said`: its message stands before.
fn sentence(trace: &Trace<'_>, reason: AbortReason, is_said: bool) -> (Kind, String) {
    let after = |is: fn(&str) -> bool, word| {
        let frame = trace.find(is);
        frame.map(|frame| trace.after(frame, word, is)).unwrap_or_default()
    };
    let caller = || {
        let abort = trace.find(|name| name == "abort").filter(|&abort| trace.module(abort).is_some());
        // A static program has libc's functions in its own file. Those have no source that is known, and names of their own.
        let own = abort.and_then(|abort| match trace.is_outside(abort) {
            Some(true) => trace.own_by_source(abort, glibc::is_inner),
            _ => trace.own(abort, is_libc),
        });
        trace.place(own, "in")
    };
    match reason {
        AbortReason::StackSmashed => {
            let place = after(glibc::is_stack_check, "in");
            (Kind::SmashedStack, format!("a buffer on the stack was overrun{place}: its stack protector saw it"))
        }
        AbortReason::BufferTooSmall => {
            let checked = trace.find(glibc::is_checked).and_then(|frame| trace.name(frame));
            let what =
                checked.map_or_else(|| "it would be overrun".to_owned(), |name| format!("{name} would overrun it"));
            (Kind::BufferOverflow, format!("libc's check of a buffer's size failed: {what}{}", called(&caller())))
        }
        AbortReason::LongjmpIntoDeadFrame => (
            Kind::LongjmpIntoDeadFrame,
            format!("longjmp() leads into a function that has returned{}", called(&caller())),
        ),
        AbortReason::DescriptorTooLarge => {
            let what = "a file descriptor is negative or too large for an fd_set (FD_SETSIZE)";
            (Kind::DescriptorOutOfRange, format!("{what}{}", called(&caller())))
        }
        AbortReason::UnsafeFormat => (
            Kind::UnsafeFormat,
            format!("a format with %n lies in writable memory, where anybody may have made it{}", called(&caller())),
        ),
        AbortReason::CheckFailed => {
            (Kind::LibcCheck, format!("libc's check of what it was called with failed{}", called(&caller())))
        }
        AbortReason::HeapDamaged => {
            let what = "an overrun, a double free or a free of no block";
            let text = format!("malloc found the heap damaged{}: {what}{}", allocator(trace), called(&caller()));
            (Kind::HeapCorruption, text)
        }
        AbortReason::AssertionFailed => {
            (Kind::FailedAssertion, format!("an assertion failed{}", after(runtime::is_assertion, "in")))
        }
        AbortReason::GaveUp => {
            let what = if is_said { "libc gave up" } else { "libc gave up, and what it said is not known" };
            (Kind::Abort, format!("{what}{}", called(&caller())))
        }
    }
}

/// ` (in _int_free)`: the function of malloc that found it.
fn allocator(trace: &Trace<'_>) -> String {
    let checked = trace.find(glibc::is_malloc_check).and_then(|frame| trace.name(frame + 1));
    let found = checked.or_else(|| trace.find(glibc::is_malloc).and_then(|frame| trace.name(frame)));
    found.map(|name| format!(" (in {name})")).unwrap_or_default()
}

/// `, called in main`
fn called(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(", called{place}") }
}

/// A C library that ends the process by an instruction that only the kernel may execute, as musl does where a check fails. `None` means that the
/// program itself executes it.
pub(super) fn halted(facts: &Evidence) -> Option<Diagnosis> {
    let trace = Trace::new(facts);
    // Without a file, the name has to do: a static program.
    let is_libcs = trace.is_outside(0).map(|is_outside| !is_outside);
    match trace.name(0) {
        Some(name) if glibc::is_stack_check(name) => {
            let place = trace.after(0, "in", glibc::is_stack_check);
            certain(Kind::SmashedStack, format!("a buffer on the stack was overrun{place}: its stack protector saw it"))
        }
        Some(name) if is_musls_malloc(facts, name, is_libcs) => {
            likely(Kind::HeapCorruption, format!("musl's {name} found the heap damaged and halts"))
        }
        _ if is_libcs == Some(true) => {
            let own = trace.own(0, is_libc).filter(|_| trace.len() > 1 && facts.is_caller_proved());
            let called = called(&trace.place(own, "in"));
            by_code(facts, &trace).or_else(|| {
                let what = "libc halts, as musl does where it finds the heap damaged, or can't go on";
                likely(Kind::LibcGaveUp, format!("{what}{called}"))
            })
        }
        None if holds_musl(facts) => by_code(facts, &trace).or_else(|| {
            let what = "halts in a program that holds musl's libc, which does so where it finds the heap damaged, or can't go on";
            likely(Kind::LibcGaveUp, format!("{what}, unless the program itself does"))
        }),
        _ => None,
    }
}

/// Is it a function of musl's malloc? A program may have a `free` of its own, or a `get_meta`.
fn is_musls_malloc(facts: &Evidence, name: &str, is_libcs: Option<bool>) -> bool {
    match is_libcs {
        Some(false) => {
            let is_among_checks = facts.halt.is_some_and(|at| at.is_among_checks);
            let is_named = musl::is_reserved(name) || (musl::is_own_malloc(name) && is_among_checks);
            holds_musl(facts) && !facts.has_source(0) && (is_named || is_linked_malloc(facts))
        }
        _ => musl::is_malloc(name),
    }
}

/// Is it musl's malloc by its code, where that is linked into a program? The program may have checks of its own that end so.
fn is_linked_malloc(facts: &Evidence) -> bool {
    facts.halt.is_some_and(|at| at.is_among_checks && at.reads_block_headers)
}

/// Is musl's libc linked into the program that halts?
fn holds_musl(facts: &Evidence) -> bool {
    facts.halt.is_some_and(|at| at.is_static && at.begins_as_musl)
}

/// Why musl halts in a function without a name: the code around it says so.
fn by_code(facts: &Evidence, trace: &Trace<'_>) -> Option<Diagnosis> {
    let at = facts.halt.filter(|_| trace.name(0).is_none())?;
    if at.is_behind_stack_check && arch::is_return_next(facts.code.as_deref()?) {
        let what = "halts in a function that does nothing else, as musl's __stack_chk_fail() does";
        let text = format!("{what}: a buffer on the stack was overrun{}", trace.place(Some(1), "in"));
        return likely(Kind::SmashedStack, text);
    }
    let is_libcs = trace.is_outside(0) == Some(false);
    if at.is_among_checks && (is_libcs || is_linked_malloc(facts)) {
        let what = "halts among many checks that end so, as musl's malloc does where it finds the heap damaged";
        return likely(Kind::HeapCorruption, what);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, general_protection, kind, signal, text};
    use super::*;

    const LIBC: &str = "/lib/libc.so.6";
    const OWN: &str = "/bin/x";

    /// An abort with this message. The last `own` frames are the program's own, the others libc's.
    fn said(message: &str, frames: &[&str], own: usize) -> Case {
        let modules = (0..frames.len()).map(|frame| if frame + own < frames.len() { LIBC } else { OWN }).collect();
        let abort_message = (!message.is_empty()).then(|| message.to_owned());
        Case { modules, abort_message, ..signal(6, -6) }.called(frames)
    }

    #[test]
    fn the_message_leads_and_the_first_function_outside_is_named() {
        let fatal = ["raise", "abort", "__libc_message", "__libc_fatal", "unwind_cleanup", "swallow", "start_thread"];
        let mut case = said("FATAL: exception not rethrown\n", &fatal, 2);
        assert_eq!(text(&case), "FATAL: exception not rethrown: libc gave up, called in swallow");
        assert_eq!((kind(&case), confidence(&case)), (Some(Kind::Abort), Some(Confidence::Certain)));
        case.abort_message = None;
        assert_eq!(text(&case), "libc gave up, and what it said is not known, called in swallow");
        let format = ["raise", "abort", "__libc_message", "__libc_fatal", "__vfprintf_internal", "main"];
        let case = said("*** %n in writable segment detected ***", &format, 1);
        assert!(text(&case).starts_with("*** %n in writable segment detected ***: a format with %n"));
        assert!(text(&case).ends_with(", called in main"));
        assert_eq!(kind(&case), Some(Kind::UnsafeFormat));
    }

    #[test]
    fn not_every_check_is_of_a_buffer() {
        let check =
            |message: &str, function: &str| said(message, &["raise", "abort", "__fortify_fail", function, "main"], 1);
        let table = [
            (
                "*** longjmp causes uninitialized stack frame ***: terminated",
                "____longjmp_chk",
                Kind::LongjmpIntoDeadFrame,
            ),
            ("", "__longjmp_chk", Kind::LongjmpIntoDeadFrame),
            ("*** buffer overflow detected ***: terminated", "__fdelt_chk", Kind::DescriptorOutOfRange),
            ("*** bit out of range 0 - FD_SETSIZE on fd_set ***: terminated", "?", Kind::DescriptorOutOfRange),
            ("", "__fdelt_warn", Kind::DescriptorOutOfRange),
            ("*** invalid open call: O_CREAT or O_TMPFILE without mode ***: terminated", "__open_2", Kind::LibcCheck),
            ("", "__open_2", Kind::LibcCheck),
            ("*** buffer overflow detected ***: terminated", "__strcpy_chk", Kind::BufferOverflow),
            ("", "__read_chk", Kind::BufferOverflow),
        ];
        for (message, function, expected) in table {
            assert_eq!(kind(&check(message, function)), Some(expected), "{message} {function}");
        }
        assert_eq!(confidence(&check("", "__open_2")), Some(Confidence::Likely), "what failed is not known");
    }

    #[test]
    fn a_malloc_of_the_programs_own_is_none_of_libcs() {
        let own = said("", &["raise", "abort", "malloc", "load", "main"], 3);
        assert_eq!(text(&own), "calls abort() in malloc");
        let own = said("", &["raise", "abort", "malloc_printerr", "free", "main"], 3);
        assert_eq!(kind(&own), Some(Kind::Abort), "a name is no proof");
        let stripped = said("", &["raise", "abort", "?", "?", "free", "main"], 1);
        assert_eq!((kind(&stripped), confidence(&stripped)), (Some(Kind::HeapCorruption), Some(Confidence::Likely)));
        let linked = said("", &["raise", "abort", "__libc_message", "malloc_printerr", "_int_free", "main"], 6);
        assert_eq!(
            (kind(&linked), confidence(&linked)),
            (Some(Kind::HeapCorruption), Some(Confidence::Certain)),
            "static"
        );
    }

    #[test]
    fn a_static_programs_own_function_is_named() {
        // The source of the last `own` frames is known.
        let linked = |frames: &[&str], own: usize| {
            let mut evidence = said("", frames, frames.len()).evidence();
            for frame in evidence.frames.iter_mut().rev().take(own) {
                let function = frame.function.as_mut();
                function.unwrap().file = Some("/src/own.c".to_owned());
            }
            super::super::diagnose(&evidence).unwrap().text
        };
        let free = ["abort", "__libc_message", "malloc_printerr", "_int_free", "__libc_free", "release", "main"];
        let found = "malloc found the heap damaged (in _int_free): an overrun, a double free or a free of no block";
        assert_eq!(linked(&free, 2), format!("{found}, called in release"));
        assert_eq!(linked(&free, 0), found, "it may be libc's own");
        let copy = ["abort", "__libc_message", "__fortify_fail", "__chk_fail", "memcpy", "copy", "main"];
        let found = "libc's check of a buffer's size failed: it would be overrun";
        assert_eq!(linked(&copy, 2), format!("{found}, called in copy"));
        let print = ["abort", "__libc_message", "__libc_fatal", "__vfprintf_internal", "printf", "print", "main"];
        assert!(linked(&print, 2).ends_with(", called in print"));
    }

    #[test]
    fn a_message_of_before_is_not_this_aborts() {
        let old = said("free(): invalid pointer", &["raise", "abort", "give_up", "main"], 2);
        assert_eq!(text(&old), "calls abort() in give_up");
    }

    /// `hlt` in these functions of this file.
    fn halt(module: &'static str, frames: &[&str]) -> Case {
        Case { modules: vec![module, OWN], frame_bytes: Some(64), ..general_protection(&[0xf4]) }.called(frames)
    }

    #[test]
    fn the_code_tells_where_names_are_missing() {
        use crate::evidence::Halt;
        let (privileged, gave_up, heap) = (Kind::PrivilegedInstruction, Kind::LibcGaveUp, Kind::HeapCorruption);
        let (sure, maybe) = (Confidence::Certain, Confidence::Likely);
        let musl = Halt { is_static: true, begins_as_musl: true, ..Halt::default() };
        let (linked, dynamic) = (Halt { is_static: true, ..Halt::default() }, Halt::default());
        let returns = |at: Halt| Case { code: vec![0xf4, 0xc3], halt: Some(at), ..halt(OWN, &["?", "?"]) };
        let of = |case: &Case| (kind(case).unwrap(), confidence(case).unwrap());
        let checked = |at: Halt| returns(Halt { is_behind_stack_check: true, ..at });
        assert_eq!(of(&checked(musl)), (Kind::SmashedStack, maybe));
        assert_eq!(of(&checked(linked)), (privileged, maybe), "not musl's");
        assert_eq!(of(&checked(dynamic)), (privileged, sure), "musl's would be in its own file");
        assert_eq!(of(&returns(musl)), (gave_up, maybe), "or the program itself");
        let at = |at: Halt, module, name| Case { halt: Some(at), ..halt(module, &[name, "main"]) };
        let among = |at: Halt| Halt { is_among_checks: true, ..at };
        let headers = |at: Halt| Halt { reads_block_headers: true, ..among(at) };
        assert_eq!(of(&at(headers(musl), OWN, "?")), (heap, maybe));
        assert_eq!(of(&at(headers(musl), OWN, "alloc_slot")), (heap, maybe));
        assert_eq!(of(&at(among(musl), OWN, "?")), (gave_up, maybe), "or checks of the program's own");
        assert_eq!(of(&at(among(musl), OWN, "verify")), (privileged, maybe));
        assert_eq!(of(&at(among(musl), OWN, "get_meta")), (heap, maybe));
        assert_eq!(of(&at(musl, OWN, "__libc_malloc_impl")), (heap, maybe));
        assert_eq!(of(&at(musl, OWN, "get_meta")), (privileged, maybe), "a function of the program's own");
        assert_eq!(of(&at(linked, OWN, "get_meta")), (privileged, sure), "not musl's");
        assert_eq!(of(&at(dynamic, OWN, "get_meta")), (privileged, sure), "musl's would be in its own file");
        assert_eq!(of(&at(among(dynamic), "/lib/ld-musl-x86_64.so.1", "?")), (heap, maybe));
        assert_eq!(of(&at(headers(linked), OWN, "?")), (privileged, maybe));
        assert_eq!(of(&at(headers(dynamic), OWN, "?")), (privileged, sure));
        assert_eq!(of(&at(musl, OWN, "stop")), (privileged, maybe), "its source isn't known");
        assert_eq!(of(&at(linked, OWN, "stop")), (privileged, sure));
        assert_eq!(of(&Case { halt: None, ..halt(OWN, &["?"]) }), (privileged, maybe), "the file is gone");
        // hlt; cmpl $5, stage: glibc's abort() in a static program without names
        let mut aborts = at(linked, OWN, "?");
        aborts.code = vec![0xf4, 0x83, 0x3d, 1, 2, 3, 4, 5];
        aborts.pid_in_namespace = Some(1);
        assert_eq!(of(&aborts), (Kind::Abort, maybe));
        assert_eq!(of(&Case { halt: Some(dynamic), ..aborts }), (privileged, sure));
    }

    #[test]
    fn libcs_halt_is_not_the_programs() {
        let musl = "/lib/ld-musl-x86_64.so.1";
        let case = halt(musl, &["__stack_chk_fail", "copy", "main"]);
        assert_eq!(text(&case), "a buffer on the stack was overrun in copy: its stack protector saw it");
        assert_eq!((kind(&case), confidence(&case)), (Some(Kind::SmashedStack), Some(Confidence::Certain)));
        assert_eq!(kind(&halt(musl, &["?", "main"])), Some(Kind::LibcGaveUp));
        assert!(text(&halt(musl, &["?", "main"])).ends_with(", called in main"));
        let past = |frames| text(&Case { frame_bytes: None, ..halt(musl, frames) });
        assert!(past(&["?", "main"]).ends_with("or can't go on"), "a frame pointer may lead past the caller");
        assert_eq!(past(&["abort", "main"]), "calls abort(): SIGABRT did not end it, so it halts");
        assert_eq!(kind(&halt(OWN, &["?", "main"])), Some(Kind::PrivilegedInstruction));
        assert_eq!(kind(&halt(OWN, &["free", "main"])), Some(Kind::PrivilegedInstruction), "a free() of its own");
        let init = Case { pid_in_namespace: Some(1), ..halt(LIBC, &["abort", "give_up", "main"]) };
        assert!(text(&init).starts_with("calls abort() in give_up: SIGABRT does not end process 1"));
        assert_eq!((kind(&init), confidence(&init)), (Some(Kind::Abort), Some(Confidence::Certain)));
        let smashed = ["abort", "__libc_message", "__fortify_fail", "__stack_chk_fail", "copy", "main"];
        let modules = vec![LIBC, LIBC, LIBC, LIBC, OWN, OWN];
        let smashed = Case { modules, ..halt(LIBC, &[]) }.called(&smashed);
        let smashed = Case { pid_in_namespace: Some(1), ..smashed };
        assert_eq!(
            text(&smashed),
            "a buffer on the stack was overrun in copy: its stack protector saw it; SIGABRT does not end process 1 of a pid namespace, \
             so it halts"
        );
        assert_eq!((kind(&smashed), confidence(&smashed)), (Some(Kind::SmashedStack), Some(Confidence::Certain)));
        let other = Case { pid_in_namespace: None, ..init };
        assert!(text(&other).ends_with("SIGABRT did not end it, so it halts"));
    }
}
