//! SIGABRT that a process raised on itself: the names of the frames say why.
//!
//! A trace may end early or have no names. Then the sentence says no more than that the process ended itself.

use super::{Diagnosis, Kind, certain, likely, sure};
use crate::evidence::{Evidence, Sender};
use crate::runtime::{self, cxx, glibc, rust};

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

fn cause(facts: &Evidence) -> Option<Diagnosis> {
    let trace = Trace::new(facts);
    if let Some(frame) = trace.find(glibc::is_stack_check) {
        let whose = trace.after(frame, "in", glibc::is_stack_check);
        return certain(
            Kind::SmashedStack,
            format!("a buffer on the stack was overrun{whose}: its stack protector saw it"),
        );
    }
    if let Some(frame) = trace.find(glibc::is_fortify) {
        return fortify(&trace, frame);
    }
    if let Some(found) = heap(&trace) {
        return Some(found);
    }
    if let Some(frame) = trace.find(runtime::is_assertion) {
        return certain(
            Kind::FailedAssertion,
            format!("an assertion failed{}", trace.after(frame, "in", runtime::is_assertion)),
        );
    }
    panic(&trace).or_else(|| cplusplus(&trace)).or_else(|| message(facts)).or_else(|| alone(&trace))
}

/// If the frames have no names: from the message of libc.
fn message(facts: &Evidence) -> Option<Diagnosis> {
    match glibc::said(facts.abort_message.as_deref()?)? {
        glibc::AbortReason::HeapDamaged => certain(
            Kind::HeapCorruption,
            "malloc found the heap damaged: an overrun, a double free or a free of no block",
        ),
        glibc::AbortReason::StackSmashed => {
            certain(Kind::SmashedStack, "a buffer on the stack was overrun: its stack protector saw it")
        }
        glibc::AbortReason::BufferTooSmall => {
            certain(Kind::BufferOverflow, "libc's check of a buffer's size failed: it would be overrun")
        }
        glibc::AbortReason::AssertionFailed => certain(Kind::FailedAssertion, "an assertion failed"),
    }
}

fn fortify(trace: &Trace, frame: usize) -> Option<Diagnosis> {
    let checked = trace.names.iter().skip(frame).flatten().find(|name| glibc::is_checked(name));
    match checked {
        Some(name) => {
            certain(Kind::BufferOverflow, format!("libc's check of a buffer's size failed: {name} would overrun it"))
        }
        None => likely(Kind::BufferOverflow, "libc's check of a buffer failed: it was overrun, or would have been"),
    }
}

fn heap(trace: &Trace) -> Option<Diagnosis> {
    let text = |function: Option<&str>| {
        let place = function.map(|name| format!(" (in {name})")).unwrap_or_default();
        format!("malloc found the heap damaged{place}: an overrun, a double free or a free of no block")
    };
    if let Some(frame) = trace.find(glibc::is_malloc_check) {
        return certain(Kind::HeapCorruption, text(trace.name(frame + 1)));
    }
    // In a stripped libc the frames between have no names: abort() below free() is a check of malloc.
    let raised = trace.find(runtime::is_abort).or_else(|| trace.find(runtime::is_assertion))?;
    let is_passed = |name: &str| runtime::is_abort(name) || runtime::is_assertion(name);
    let next = (raised..trace.names.len()).find_map(|frame| trace.name(frame).filter(|name| !is_passed(name)))?;
    if glibc::is_malloc(next) { likely(Kind::HeapCorruption, text(Some(next))) } else { None }
}

fn panic(trace: &Trace) -> Option<Diagnosis> {
    if trace.find(rust::is_allocation_error).is_some() {
        return certain(Kind::AllocationFailed, "memory could not be allocated, and Rust ends a process for that");
    }
    let first = trace.find(rust::is_panic)?;
    let after = (first..trace.names.len()).find(|frame| !trace.name(*frame).is_some_and(rust::is_panic_machinery));
    let place = after.and_then(|frame| trace.name(frame)).map(|name| format!(" in {name}")).unwrap_or_default();
    certain(Kind::RustPanicAbort, format!("a Rust panic{place} that ends the process instead of unwinding"))
}

fn cplusplus(trace: &Trace) -> Option<Diagnosis> {
    if let Some(frame) = trace.find(cxx::is_pure_virtual) {
        let place = trace.after(frame, "in", cxx::is_pure_virtual);
        return certain(Kind::PureVirtualCall, format!("calls a virtual function that has no body{place}"));
    }
    let terminate = trace.find(cxx::is_terminate);
    if let Some(frame) = trace.find(cxx::is_throw) {
        let place = trace.after(frame, "thrown in", cxx::is_throw);
        return certain(Kind::UncaughtException, format!("a C++ exception{place} that nobody catches"));
    }
    let terminate = terminate?;
    if trace.names.iter().skip(terminate).flatten().any(|name| cxx::is_threads_destructor(name)) {
        return certain(Kind::JoinableThread, "a std::thread was destroyed before it was joined or detached");
    }
    likely(Kind::UncaughtException, "std::terminate() ended it: a C++ exception that nobody catches, most often")
}

/// Nothing but abort(), or a trace that doesn't lead to more.
fn alone(trace: &Trace) -> Option<Diagnosis> {
    let abort = trace.names.iter().position(|name| name.as_deref() == Some("abort"));
    let place = abort.map(|frame| trace.after(frame, "in", runtime::is_abort)).unwrap_or_default();
    let text = match abort {
        Some(_) => format!("calls abort(){place}"),
        None => "ended itself with SIGABRT, as abort() and failed checks of libraries do".to_owned(),
    };
    sure(abort.is_some() && !place.is_empty(), Kind::Abort, text)
}

/// The frames' names as they are compared: without version, arguments and glibc's prefix.
struct Trace<'a> {
    names: Vec<Option<String>>,
    facts: &'a Evidence,
}

impl<'a> Trace<'a> {
    fn new(facts: &'a Evidence) -> Self {
        let names =
            (0..facts.frames.len()).map(|frame| facts.function(frame).map(|name| bare(name).to_owned())).collect();
        Self { names, facts }
    }

    fn name(&self, frame: usize) -> Option<&str> {
        self.names.get(frame)?.as_deref()
    }

    /// The innermost frame whose function is such a one.
    fn find(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        (0..self.names.len()).find(|frame| self.name(*frame).is_some_and(&is))
    }

    /// ` in main`: the first frame from `frame` on whose function is no such one. Empty where it has no name at all.
    fn after(&self, frame: usize, word: &str, is: impl Fn(&str) -> bool) -> String {
        let is_passed = |name: &str| is(name) || cxx::is_librarys_throw(name);
        let next = (frame..self.names.len()).find(|frame| !self.name(*frame).is_some_and(is_passed));
        next.and_then(|frame| self.facts.function(frame)).map(|name| format!(" {word} {name}")).unwrap_or_default()
    }
}

/// Without version, arguments and prefix.
fn bare(symbol: &str) -> &str {
    let name = glibc::without_version(symbol);
    name.split_once('(').map_or(name, |(function, _)| if function.is_empty() { name } else { function })
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, kind, signal, text};
    use super::*;

    /// SIGABRT by itself, with these frames; `?` has no name.
    fn aborted(frames: &[&str]) -> Case {
        signal(6, -6).called(frames)
    }

    #[test]
    fn the_frames_tell_the_cause() {
        let table: [(&[&str], Kind, Confidence); 16] = [
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
            (&["abort", "?", "__fortify_fail", "main"], Kind::BufferOverflow, Confidence::Likely),
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
            (&["abort", "?", "std::terminate()", "main"], Kind::UncaughtException, Confidence::Likely),
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
    fn what_stands_under_every_rust_program_is_no_panic() {
        let frames = ["abort", "std::process::abort", "app::main", "std::panicking::try", "std::rt::lang_start"];
        assert_eq!(text(&aborted(&frames)), "calls abort() in app::main");
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

    #[test]
    fn names_are_compared_bare() {
        assert_eq!(bare("abort"), "abort");
        assert_eq!(bare("cfree@@GLIBC_2.2.5"), "cfree");
        assert_eq!(bare("__GI_abort"), "abort");
        assert_eq!(bare("std::terminate()"), "std::terminate");
    }
}
