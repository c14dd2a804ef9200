//! SIGABRT that a process raised on itself: the names of the frames say why.
//!
//! A trace may end early or have no names. Then the sentence says no more than that the process ended itself.

use super::super::record::Diagnosis;
use super::facts::{Facts, without_offset};
use super::{certain, likely, sure};

const STACK_CHECK: [&str; 2] = ["__stack_chk_fail", "__stack_chk_fail_local"];
const FORTIFY: [&str; 3] = ["__fortify_fail", "__fortify_fail_abort", "__chk_fail"];
const ASSERT: [&str; 8] = [
    "__assert_fail",
    "__assert_fail_base",
    "__assert_perror_fail",
    "__assert",
    "g_assertion_message",
    "g_assertion_message_expr",
    "std::__glibcxx_assert_fail",
    "std::__replacement_assert",
];
/// glibc's malloc speaks for itself.
const MALLOC_CHECK: [&str; 2] = ["malloc_printerr", "__malloc_assert"];
const MALLOC: [&str; 16] = [
    "_int_malloc",
    "_int_free",
    "_int_free_chunk",
    "_int_free_merge_chunk",
    "_int_realloc",
    "_int_memalign",
    "malloc_consolidate",
    "unlink_chunk",
    "sysmalloc",
    "munmap_chunk",
    "malloc",
    "free",
    "cfree",
    "realloc",
    "calloc",
    "__libc_free",
];
const ALLOCATION_ERROR: [&str; 4] =
    ["alloc::alloc::handle_alloc_error", "std::alloc::rust_oom", "__rust_alloc_error_handler", "__rdl_oom"];
const THROW: [&str; 3] = ["__cxa_throw", "__cxa_rethrow", "std::rethrow_exception"];
const TERMINATE: [&str; 5] = [
    "std::terminate",
    "__cxxabiv1::__terminate",
    "__gnu_cxx::__verbose_terminate_handler",
    "__cxa_call_terminate",
    "__clang_call_terminate",
];
const PURE_VIRTUAL: [&str; 2] = ["__cxa_pure_virtual", "__cxa_deleted_virtual"];
/// What every abort goes through.
const RAISE: [&str; 11] = [
    "abort",
    "raise",
    "gsignal",
    "pthread_kill",
    "__pthread_kill_implementation",
    "__pthread_kill_internal",
    "__libc_message",
    "__libc_message_impl",
    "std::process::abort",
    "std::sys::pal::unix::abort_internal",
    "std::sys::unix::abort_internal",
];

/// SIGABRT with SI_TKILL.
pub(super) fn diagnose(facts: &Facts) -> Option<Diagnosis> {
    if facts.pid.is_none() || facts.sender_pid != facts.pid {
        return None;
    }
    let mut told = cause(facts)?;
    if facts.in_pid_namespace && facts.pid_in_namespace == Some(1) {
        told.text.push_str("; it is process 1 of its pid namespace, whose other processes end with it");
    }
    Some(told)
}

fn cause(facts: &Facts) -> Option<Diagnosis> {
    let trace = Trace::new(facts);
    if let Some(frame) = trace.find(&STACK_CHECK) {
        let whose = trace.after(frame, "in", &STACK_CHECK);
        return certain(
            "smashed_stack",
            format!("a buffer on the stack was overrun{whose}: its stack protector saw it"),
        );
    }
    if let Some(frame) = trace.find(&FORTIFY) {
        return fortify(&trace, frame);
    }
    if let Some(told) = heap(&trace) {
        return Some(told);
    }
    if let Some(frame) = trace.find(&ASSERT) {
        return certain("failed_assertion", format!("an assertion failed{}", trace.after(frame, "in", &ASSERT)));
    }
    rust(&trace).or_else(|| cplusplus(&trace)).or_else(|| message(facts)).or_else(|| alone(&trace))
}

/// Where the frames have no names, what libc says has.
fn message(facts: &Facts) -> Option<Diagnosis> {
    // malloc/malloc.c, debug/fortify_fail.c, assert/assert.c
    const HEAP: [&str; 10] = [
        "free(): ",
        "malloc(): ",
        "malloc_consolidate(): ",
        "realloc(): ",
        "munmap_chunk(): ",
        "mremap_chunk(): ",
        "double free or corruption",
        "corrupted ",
        "break adjusted to free malloc space",
        "tcache_thread_shutdown(): ",
    ];
    let said = facts.abort_message.as_deref()?;
    if HEAP.iter().any(|begin| said.starts_with(begin)) {
        return certain(
            "heap_corruption",
            "malloc found the heap damaged: an overrun, a double free or a free of no block",
        );
    }
    match said {
        _ if said.starts_with("*** stack smashing detected ***") => {
            certain("smashed_stack", "a buffer on the stack was overrun: its stack protector saw it")
        }
        _ if said.starts_with("*** buffer overflow detected ***") => {
            certain("buffer_overflow", "libc's check of a buffer's size failed: it would be overrun")
        }
        _ if said.contains(": Assertion `") && said.ends_with("' failed.") => {
            certain("failed_assertion", "an assertion failed")
        }
        _ => None,
    }
}

fn fortify(trace: &Trace, frame: usize) -> Option<Diagnosis> {
    let checked =
        trace.names.iter().skip(frame).flatten().find(|name| name.starts_with("__") && name.ends_with("_chk"));
    match checked {
        Some(name) => {
            certain("buffer_overflow", format!("libc's check of a buffer's size failed: {name} would overrun it"))
        }
        None => likely("buffer_overflow", "libc's check of a buffer failed: it was overrun, or would have been"),
    }
}

fn heap(trace: &Trace) -> Option<Diagnosis> {
    let text = |function: Option<&str>| {
        let place = function.map(|name| format!(" (in {name})")).unwrap_or_default();
        format!("malloc found the heap damaged{place}: an overrun, a double free or a free of no block")
    };
    if let Some(frame) = trace.find(&MALLOC_CHECK) {
        return certain("heap_corruption", text(trace.name(frame + 1)));
    }
    // The frames between have no names in a stripped libc: what calls abort() from free() is malloc's own check.
    let raised = trace.find(&RAISE).or_else(|| trace.find(&ASSERT))?;
    let is_passed = |name: &str| RAISE.contains(&name) || ASSERT.contains(&name);
    let next = (raised..trace.names.len()).find_map(|frame| trace.name(frame).filter(|name| !is_passed(name)))?;
    if MALLOC.contains(&next) { likely("heap_corruption", text(Some(next))) } else { None }
}

fn rust(trace: &Trace) -> Option<Diagnosis> {
    if trace.find(&ALLOCATION_ERROR).is_some() {
        return certain("allocation_failed", "memory could not be allocated, and Rust ends a process for that");
    }
    let first = trace.names.iter().position(|name| name.as_deref().is_some_and(is_panic))?;
    let machinery = |name: &str| {
        is_panic(name) || name.starts_with("std::panicking::") || name.contains("__rust_end_short_backtrace")
    };
    let after = (first..trace.names.len()).find(|frame| !trace.name(*frame).is_some_and(machinery));
    let place = after.and_then(|frame| trace.name(frame)).map(|name| format!(" in {name}")).unwrap_or_default();
    certain("rust_panic_abort", format!("a Rust panic{place} that ends the process instead of unwinding"))
}

/// Not all of std::panicking: every Rust program runs below `std::panicking::try`.
fn is_panic(name: &str) -> bool {
    const WHOLE: [&str; 9] = [
        "rust_begin_unwind",
        "__rustc::rust_begin_unwind",
        "rust_panic",
        "__rustc::rust_panic",
        "__rust_start_panic",
        "__rustc::__rust_start_panic",
        "core::option::unwrap_failed",
        "core::option::expect_failed",
        "core::result::unwrap_failed",
    ];
    const BEGIN: [&str; 5] = [
        "core::panicking::",
        "std::panicking::begin_panic",
        "std::panicking::rust_panic",
        "std::panicking::panic_handler",
        "panic_abort::",
    ];
    WHOLE.contains(&name) || BEGIN.iter().any(|begin| name.starts_with(begin))
}

fn cplusplus(trace: &Trace) -> Option<Diagnosis> {
    if let Some(frame) = trace.find(&PURE_VIRTUAL) {
        let place = trace.after(frame, "in", &PURE_VIRTUAL);
        return certain("pure_virtual_call", format!("calls a virtual function that has no body{place}"));
    }
    let terminate = trace.find(&TERMINATE);
    if let Some(frame) = trace.find(&THROW) {
        let place = trace.after(frame, "thrown in", &THROW);
        return certain("uncaught_exception", format!("a C++ exception{place} that nobody catches"));
    }
    let terminate = terminate?;
    if trace.names.iter().skip(terminate).flatten().any(|name| name.starts_with("std::thread::~thread")) {
        return certain("joinable_thread", "a std::thread was destroyed before it was joined or detached");
    }
    likely("uncaught_exception", "std::terminate() ended it: a C++ exception that nobody catches, most often")
}

/// Nothing but abort(), or a trace that doesn't lead to more.
fn alone(trace: &Trace) -> Option<Diagnosis> {
    let abort = trace.names.iter().position(|name| name.as_deref() == Some("abort"));
    let place = abort.map(|frame| trace.after(frame, "in", &RAISE)).unwrap_or_default();
    let text = match abort {
        Some(_) => format!("calls abort(){place}"),
        None => "ended itself with SIGABRT, as abort() and failed checks of libraries do".to_owned(),
    };
    sure(abort.is_some() && !place.is_empty(), "abort", text)
}

/// The frames' names as they are compared: without offset, version, arguments and glibc's prefix.
struct Trace<'a> {
    names: Vec<Option<String>>,
    facts: &'a Facts,
}

impl<'a> Trace<'a> {
    fn new(facts: &'a Facts) -> Self {
        let names = facts.frames.iter().map(|frame| frame.as_deref().map(|symbol| bare(symbol).to_owned())).collect();
        Self { names, facts }
    }

    fn name(&self, frame: usize) -> Option<&str> {
        self.names.get(frame)?.as_deref()
    }

    /// The innermost frame with one of the names.
    fn find(&self, names: &[&str]) -> Option<usize> {
        (0..self.names.len()).find(|frame| self.name(*frame).is_some_and(|name| names.contains(&name)))
    }

    /// ` in main`: the first frame from `frame` on that has none of the names. Empty where it has no name at all.
    fn after(&self, frame: usize, word: &str, names: &[&str]) -> String {
        // libstdc++ throws its own exceptions from these.
        let is_passed = |name: &str| names.contains(&name) || name.starts_with("std::__throw_");
        let next = (frame..self.names.len()).find(|frame| !self.name(*frame).is_some_and(is_passed));
        next.and_then(|frame| self.facts.function(frame)).map(|name| format!(" {word} {name}")).unwrap_or_default()
    }
}

fn bare(symbol: &str) -> &str {
    let name = without_offset(symbol);
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let name = name.split_once('(').map_or(name, |(name, _)| if name.is_empty() { symbol } else { name });
    name.strip_prefix("__GI_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::cases::{confidence, facts, name, text};
    use super::*;

    /// SIGABRT by itself, with these frames; `?` has no name.
    fn aborted(frames: &[&str]) -> Facts {
        let frames = frames.iter().map(|name| Some((*name).to_owned()).filter(|name| name != "?")).collect();
        Facts { frames, sender_pid: Some(100), ..facts(6, -6) }
    }

    #[test]
    fn the_frames_tell_the_cause() {
        let table: [(&[&str], &str, &str); 16] = [
            (
                &["raise", "abort", "__libc_message", "__fortify_fail", "__stack_chk_fail+0x14", "copy", "main"],
                "smashed_stack",
                "certain",
            ),
            (&["abort", "__fortify_fail", "__chk_fail", "__strcpy_chk", "main"], "buffer_overflow", "certain"),
            (&["abort", "?", "__fortify_fail", "main"], "buffer_overflow", "likely"),
            (
                &["abort+0xd3", "__assert_fail_base", "__GI___assert_fail", "check", "main"],
                "failed_assertion",
                "certain",
            ),
            (
                &["abort", "__libc_message", "malloc_printerr", "_int_free", "free", "main"],
                "heap_corruption",
                "certain",
            ),
            (&["raise", "abort", "?", "?", "?", "cfree@GLIBC_2.2.5", "main"], "heap_corruption", "likely"),
            (&["abort", "__assert_fail", "sysmalloc", "malloc", "main"], "heap_corruption", "likely"),
            (
                &["abort", "__gnu_cxx::__verbose_terminate_handler()", "std::terminate()", "__cxa_throw", "parse(int)"],
                "uncaught_exception",
                "certain",
            ),
            (&["abort", "?", "std::terminate()", "main"], "uncaught_exception", "likely"),
            (&["abort", "std::terminate()", "std::thread::~thread()", "main"], "joinable_thread", "certain"),
            (&["abort", "std::terminate()", "__cxa_pure_virtual", "run()", "main"], "pure_virtual_call", "certain"),
            (
                &[
                    "abort",
                    "__rustc::__rust_start_panic",
                    "rust_panic",
                    "std::panicking::rust_panic_with_hook",
                    "core::panicking::panic_fmt",
                    "app::main",
                ],
                "rust_panic_abort",
                "certain",
            ),
            (&["abort", "std::process::abort", "__rust_alloc_error_handler", "main"], "allocation_failed", "certain"),
            (&["raise+0x10", "abort", "give_up", "main"], "abort", "certain"),
            (&["raise", "abort", "?"], "abort", "likely"),
            (&["?"], "abort", "likely"),
        ];
        for (frames, kind, sure) in table {
            let facts = aborted(frames);
            assert_eq!((name(&facts), confidence(&facts)), (Some(kind), Some(sure)), "{frames:?}");
        }
    }

    #[test]
    fn what_libc_says_counts_where_frames_have_no_names() {
        let says = |frames: &[&str], text: &str| Facts { abort_message: Some(text.to_owned()), ..aborted(frames) };
        let table = [
            ("free(): double free detected in tcache 2", "heap_corruption"),
            ("corrupted size vs. prev_size", "heap_corruption"),
            ("*** stack smashing detected ***: terminated", "smashed_stack"),
            ("*** buffer overflow detected ***: terminated", "buffer_overflow"),
            ("app: app.c:7: main: Assertion `fine' failed.", "failed_assertion"),
            ("The futex facility returned an unexpected error code.", "abort"),
            ("free", "abort"),
        ];
        for (text, kind) in table {
            assert_eq!(name(&says(&["?", "?"], text)), Some(kind), "{text}");
        }
        let thrown = says(&["abort", "std::terminate()", "__cxa_throw", "parse(int)"], "free(): invalid pointer");
        assert_eq!(name(&thrown), Some("uncaught_exception"), "an older message: the frames are of now");
    }

    #[test]
    fn the_place_is_the_function_behind_the_check() {
        let told = |frames: &[&str]| text(&aborted(frames));
        assert_eq!(
            told(&["abort", "__stack_chk_fail+0x14", "copy+0x4", "main"]),
            "a buffer on the stack was overrun in copy: its stack protector saw it"
        );
        assert_eq!(
            told(&["abort", "__assert_fail_base", "__assert_fail", "check+0x1"]),
            "an assertion failed in check"
        );
        assert_eq!(told(&["abort", "__assert_fail", "?", "main"]), "an assertion failed", "the next frame has no name");
        assert_eq!(
            told(&["abort", "core::panicking::panic_fmt", "core::option::unwrap_failed", "app::load"]),
            "a Rust panic in app::load that ends the process instead of unwinding"
        );
        assert_eq!(
            told(&["abort", "__cxa_throw", "parse(int)+0x8"]),
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
        assert_eq!(name(&aborted(&["raise", "abort", "hook", "malloc", "main"])), Some("abort"));
        assert_eq!(name(&aborted(&["?", "free", "main"])), Some("abort"), "nothing says that free() aborts");
    }

    #[test]
    fn only_its_own_abort_is_judged() {
        let frames = ["abort", "__stack_chk_fail", "copy"];
        assert_eq!(name(&Facts { sender_pid: Some(101), ..aborted(&frames) }), None);
        assert_eq!(name(&Facts { sender_pid: None, ..aborted(&frames) }), None);
        assert_eq!(name(&Facts { sender_pid: None, pid: None, ..aborted(&frames) }), None);
        assert_eq!(name(&Facts { si_code: Some(0), ..aborted(&frames) }), None);
        assert_eq!(name(&Facts { signal: 11, ..aborted(&frames) }), None);
    }

    #[test]
    fn the_end_of_a_containers_init_is_remarked() {
        let init = Facts { in_pid_namespace: true, pid_in_namespace: Some(1), ..aborted(&["raise", "abort", "main"]) };
        assert_eq!(
            text(&init),
            "calls abort() in main; it is process 1 of its pid namespace, whose other processes end with it"
        );
        assert_eq!(name(&init), Some("abort"));
        assert_eq!(text(&Facts { pid_in_namespace: Some(2), ..init.clone() }), "calls abort() in main");
        assert_eq!(text(&Facts { in_pid_namespace: false, ..init }), "calls abort() in main");
    }

    #[test]
    fn names_are_compared_bare() {
        assert_eq!(bare("abort+0xd3"), "abort");
        assert_eq!(bare("cfree@@GLIBC_2.2.5+0x1"), "cfree");
        assert_eq!(bare("__GI_abort"), "abort");
        assert_eq!(bare("std::terminate()"), "std::terminate");
    }
}
