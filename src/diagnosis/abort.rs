//! SIGABRT that a process raised on itself: what libc said, and the names of the frames, say why.
//!
//! A trace may end early or have no names. Then the sentence says no more than that the process ended itself.

use super::trace::Trace;
use super::{Confidence, Diagnosis, Kind, certain, libc, sure, terminate};
use crate::arch;
use crate::evidence::{Evidence, Sender};
use crate::runtime::{self, go, jvm, rust, v8};

/// SIGABRT with SI_TKILL.
pub(super) fn diagnose(facts: &Evidence) -> Option<Diagnosis> {
    if facts.sender != Some(Sender::Itself) {
        return None;
    }
    let mut found = cause(facts)?;
    if facts.thread.in_pid_namespace && facts.thread.pid_in_namespace == 1 {
        found.text.push_str("; it is process 1 of its pid namespace, whose other processes end with it");
    }
    Some(found)
}

/// abort() of any C library where SIGABRT has not ended the process: it executes an instruction that only the kernel may. `None` means that
/// another function does so.
pub(super) fn halted(facts: &Evidence) -> Option<Diagnosis> {
    let trace = Trace::new(facts);
    // A static program without names still has glibc's code.
    let is_abort = trace.name(0).map_or_else(|| is_static_abort(facts), |name| name == "abort");
    if !is_abort {
        return None;
    }
    // Without a file, the name has to do: a static program.
    let is_libcs = trace.is_outside(0) == Some(false);
    let why = match facts.thread.pid_in_namespace {
        1 => "SIGABRT does not end process 1 of a pid namespace, so it halts",
        _ => "SIGABRT did not end it, so it halts",
    };
    match reason(facts, &trace) {
        Some(found) => {
            let is_certain = is_libcs && found.confidence == Confidence::Certain;
            sure(is_certain, found.kind, format!("{}; {why}", found.text))
        }
        None => {
            // musl has no call frame information.
            let caller = facts.is_caller_proved().then(|| trace.after_merged(1, "in", runtime::is_abort));
            let place = caller.unwrap_or_default();
            sure(is_libcs, Kind::Abort, format!("calls abort(){place}: {why}"))
        }
    }
}

fn is_static_abort(facts: &Evidence) -> bool {
    let is_static = facts.halt.is_some_and(|halt| halt.is_static);
    is_static && facts.code.as_deref().is_some_and(arch::is_glibcs_aborts_halt)
}

fn cause(facts: &Evidence) -> Option<Diagnosis> {
    let trace = Trace::new(facts);
    reason(facts, &trace).or_else(|| alone(&trace))
}

/// What called abort(), and why; `None` means that it is the program itself, as far as is known.
fn reason(facts: &Evidence, trace: &Trace<'_>) -> Option<Diagnosis> {
    libc::diagnose(facts, trace)
        .or_else(|| panic(trace))
        .or_else(|| out_of_memory(trace))
        .or_else(|| terminate::diagnose(facts, trace))
        .or_else(|| dump(trace))
}

fn panic(trace: &Trace<'_>) -> Option<Diagnosis> {
    if trace.find(rust::is_allocation_error).is_some() {
        return certain(Kind::AllocationFailed, "memory could not be allocated, and Rust ends a process for that");
    }
    let first = trace.find(rust::is_panic)?;
    // A panic goes through several functions. A program in C may have one of the name of one of them.
    trace.find_from(first + 1, rust::is_panic)?;
    // A panic runs the program's own code, its hook and what describes its value, which may call abort() for any reason.
    let abort = trace.find(|name| name == "abort").map_or(0, |abort| abort + 1);
    let caller = (abort..first).find(|&frame| !trace.name(frame).is_some_and(runtime::is_abort));
    if caller.and_then(|caller| trace.name(caller)).is_some_and(|name| !rust::is_librarys(name)) {
        return None;
    }
    let after = (first..trace.len()).find(|frame| !trace.name(*frame).is_some_and(rust::is_panic_machinery));
    let place = after.and_then(|frame| trace.name(frame)).map(|name| format!(" in {name}")).unwrap_or_default();
    certain(Kind::RustPanicAbort, format!("a Rust panic{place} that ends the process instead of unwinding"))
}

/// The heap of a runtime has reached its limit, or the system has no memory for it.
fn out_of_memory(trace: &Trace<'_>) -> Option<Diagnosis> {
    // It is called by V8's own functions alone. A program may have one of its name.
    let is_among_v8s = |frame| trace.find_from(frame + 1, v8::is_own).is_some();
    let is_jvms = |frame| trace.module(frame).is_none_or(jvm::is_file);
    let runtime = match () {
        () if trace.find(v8::is_out_of_memory).is_some_and(is_among_v8s) => "V8",
        () if trace.find(jvm::is_out_of_memory).is_some_and(is_jvms) => "the JVM",
        () => return None,
    };
    let why = "its heap has reached its limit, or the system has none";
    certain(Kind::AllocationFailed, format!("{runtime} ends it for a lack of memory: {why}"))
}

/// Go's runtime has written its report, and only raises the signal.
fn dump(trace: &Trace<'_>) -> Option<Diagnosis> {
    trace.name(0).filter(|name| go::is_end(name))?;
    let why = "after a panic or a fatal error (GOTRACEBACK=crash), or for a signal";
    certain(Kind::Abort, format!("Go's runtime ends it with SIGABRT, {why}"))
}

/// Nothing but abort(), or a trace that doesn't lead to more.
fn alone(trace: &Trace<'_>) -> Option<Diagnosis> {
    let abort = trace.find(|name| name == "abort");
    let place = abort.map(|frame| trace.after_merged(frame, "in", runtime::is_abort)).unwrap_or_default();
    let text = match abort {
        Some(_) => format!("calls abort(){place}"),
        None => "ended itself with SIGABRT, as abort() and failed checks of libraries do".to_owned(),
    };
    sure(abort.is_some() && !place.is_empty(), Kind::Abort, text)
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, confidence, kind, signal, text};
    use super::*;

    /// SIGABRT by itself, with these frames, which are all that there are; `?` has no name.
    fn aborted(frames: &[&str]) -> Case {
        Case { is_unwindable: true, ..signal(6, -6) }.called(frames)
    }

    #[test]
    fn the_frames_tell_the_cause() {
        let table: [(&[&str], Kind, Confidence); 18] = [
            (
                &["raise", "abort", "__libc_message", "__fortify_fail", "__stack_chk_fail", "copy", "main"],
                Kind::SmashedStack,
                Confidence::Certain,
            ),
            (
                &["abort", "__fortify_fail", "__chk_fail", "__strcpy_chk", "main"],
                Kind::BufferOverflow,
                Confidence::Certain,
            ),
            (&["abort", "?", "__fortify_fail", "main"], Kind::LibcCheck, Confidence::Likely),
            (
                &["abort", "__assert_fail_base", "__GI___assert_fail", "check", "main"],
                Kind::FailedAssertion,
                Confidence::Certain,
            ),
            (
                &["abort", "__libc_message", "malloc_printerr", "_int_free", "free", "main"],
                Kind::HeapCorruption,
                Confidence::Certain,
            ),
            (&["raise", "abort", "?", "?", "?", "cfree@GLIBC_2.2.5", "main"], Kind::HeapCorruption, Confidence::Likely),
            (&["abort", "__assert_fail", "sysmalloc", "malloc", "main"], Kind::HeapCorruption, Confidence::Likely),
            (
                &["abort", "__gnu_cxx::__verbose_terminate_handler()", "std::terminate()", "__cxa_throw", "parse(int)"],
                Kind::UncaughtException,
                Confidence::Certain,
            ),
            (&["abort", "?", "std::terminate()", "main"], Kind::TerminateCalled, Confidence::Certain),
            (
                &["abort", "std::terminate()", "std::thread::~thread()", "main"],
                Kind::JoinableThread,
                Confidence::Certain,
            ),
            (
                &["abort", "std::terminate()", "__cxa_pure_virtual", "run()", "main"],
                Kind::PureVirtualCall,
                Confidence::Certain,
            ),
            (
                &[
                    "abort",
                    "__rustc::__rust_start_panic",
                    "rust_panic",
                    "std::panicking::rust_panic_with_hook",
                    "core::panicking::panic_fmt",
                    "app::main",
                ],
                Kind::RustPanicAbort,
                Confidence::Certain,
            ),
            (
                &["abort", "std::process::abort", "__rust_alloc_error_handler", "main"],
                Kind::AllocationFailed,
                Confidence::Certain,
            ),
            (
                &[
                    "abort",
                    "node::OOMErrorHandler(char const*)",
                    "v8::internal::V8::FatalProcessOutOfMemory(char const*)",
                    "v8::internal::Heap::FatalProcessOutOfMemory(char const*)",
                ],
                Kind::AllocationFailed,
                Confidence::Certain,
            ),
            (
                &["abort", "os::abort(bool)", "VMError::report_and_die(int)", "report_java_out_of_memory(char const*)"],
                Kind::AllocationFailed,
                Confidence::Certain,
            ),
            (&["raise", "abort", "give_up", "main"], Kind::Abort, Confidence::Certain),
            (&["raise", "abort", "?"], Kind::Abort, Confidence::Likely),
            (&["?"], Kind::Abort, Confidence::Likely),
        ];
        for (frames, expected, sure) in table {
            let case = aborted(frames);
            assert_eq!((kind(&case), confidence(&case)), (Some(expected), Some(sure)), "{frames:?}");
        }
    }

    #[test]
    fn what_libc_says_counts_where_frames_have_no_names() {
        let says = |frames: &[&str], text: &str| Case { abort_message: Some(text.to_owned()), ..aborted(frames) };
        let table = [
            ("free(): double free detected in tcache 2", Kind::HeapCorruption),
            ("corrupted size vs. prev_size", Kind::HeapCorruption),
            ("*** stack smashing detected ***: terminated", Kind::SmashedStack),
            ("*** buffer overflow detected ***: terminated", Kind::BufferOverflow),
            ("app: app.c:7: main: Assertion `fine' failed.", Kind::FailedAssertion),
            ("The futex facility returned an unexpected error code.", Kind::Abort),
            ("free", Kind::Abort),
        ];
        for (text, expected) in table {
            assert_eq!(kind(&says(&["?", "?"], text)), Some(expected), "{text}");
        }
        let thrown = says(&["abort", "std::terminate()", "__cxa_throw", "parse(int)"], "free(): invalid pointer");
        assert_eq!(kind(&thrown), Some(Kind::UncaughtException), "an older message: the frames are of now");
    }

    #[test]
    fn the_place_is_the_function_behind_the_check() {
        let told = |frames: &[&str]| text(&aborted(frames));
        assert_eq!(
            told(&["abort", "__stack_chk_fail", "copy", "main"]),
            "a buffer on the stack was overrun in copy: its stack protector saw it"
        );
        assert_eq!(told(&["abort", "__assert_fail_base", "__assert_fail", "check"]), "an assertion failed in check");
        assert_eq!(told(&["abort", "__assert_fail", "?", "main"]), "an assertion failed", "the next frame has no name");
        assert_eq!(
            told(&["abort", "core::panicking::panic_fmt", "core::option::unwrap_failed", "app::load"]),
            "a Rust panic in app::load that ends the process instead of unwinding"
        );
        assert_eq!(
            told(&["abort", "__cxa_throw", "parse(int)"]),
            "a C++ exception thrown in parse(int) that nobody catches"
        );
        assert_eq!(told(&["raise", "abort", "give_up"]), "calls abort() in give_up");
    }

    #[test]
    fn one_name_of_a_runtimes_is_no_runtime() {
        let of = |name: &'static str| {
            let case = Case { modules: vec!["/bin/x"], ..aborted(&["raise", "abort", name, "main"]) };
            (kind(&case), text(&case))
        };
        for name in
            ["rust_panic", "v8::internal::V8::FatalProcessOutOfMemory(char const*)", "report_java_out_of_memory"]
        {
            assert_eq!(of(name), (Some(Kind::Abort), format!("calls abort() in {name}")));
        }
        let libc = "/lib/libc.so.6";
        for name in ["__libc_fatal", "__fortify_fail"] {
            let case = Case { modules: vec![libc, libc, "/bin/x"], ..aborted(&["raise", "abort", name, "main"]) };
            assert_eq!(text(&case), format!("calls abort() in {name}"));
            let case = Case { modules: vec![libc, libc, libc, "/bin/x"], ..case };
            assert_ne!(text(&case), format!("calls abort() in {name}"), "libc's own");
        }
    }

    #[test]
    fn what_stands_under_every_rust_program_is_no_panic() {
        let frames = ["abort", "std::process::abort", "app::main", "std::panicking::try", "std::rt::lang_start"];
        assert_eq!(text(&aborted(&frames)), "calls abort() in app::main");
    }

    #[test]
    fn what_a_panic_calls_may_abort_for_itself() {
        let panics =
            ["std::panicking::panic_with_hook", "core::panicking::panic_fmt", "core::panicking::panic", "app::main"];
        let of = |caller: &'static str| {
            let case = aborted(&[&["raise", "abort", "std::process::abort", caller][..], &panics].concat());
            (kind(&case), text(&case))
        };
        let hook = "app::main::{{closure}}";
        assert_eq!(of(hook), (Some(Kind::Abort), format!("calls abort() in {hook}")));
        assert_eq!(of("<app::Value as core::fmt::Display>::fmt").0, Some(Kind::Abort));
        assert_eq!(of("__rustc::__rust_abort").0, Some(Kind::RustPanicAbort));
        assert_eq!(of("std::panicking::panic_with_hook").0, Some(Kind::RustPanicAbort));
    }

    #[test]
    fn malloc_as_a_caller_of_other_code_is_no_cause() {
        assert_eq!(kind(&aborted(&["raise", "abort", "hook", "malloc", "main"])), Some(Kind::Abort));
        assert_eq!(kind(&aborted(&["?", "free", "main"])), Some(Kind::Abort), "nothing says that free() aborts");
    }

    #[test]
    fn only_its_own_abort_is_judged() {
        let frames = ["abort", "__stack_chk_fail", "copy"];
        assert_eq!(kind(&Case { sender_pid: Some(101), ..aborted(&frames) }), None);
        assert_eq!(kind(&Case { sender_pid: Some(0), ..aborted(&frames) }), None, "from outside of its namespace");
        assert_eq!(kind(&Case { si_code: 0, ..aborted(&frames) }), None);
        assert_eq!(kind(&Case { signal: 11, ..aborted(&frames) }), None);
    }

    #[test]
    fn the_end_of_a_containers_init_is_remarked() {
        let init = Case { pid_in_namespace: Some(1), ..aborted(&["raise", "abort", "main"]) };
        assert_eq!(
            text(&init),
            "calls abort() in main; it is process 1 of its pid namespace, whose other processes end with it"
        );
        assert_eq!(kind(&init), Some(Kind::Abort));
        assert_eq!(text(&Case { pid_in_namespace: Some(2), ..init.clone() }), "calls abort() in main");
        assert_eq!(text(&Case { pid_in_namespace: None, ..init }), "calls abort() in main");
    }
}
