//! Aborts, and a C library that halts.

use super::super::cases::{Case, general_protection, signal};
use crate::evidence::{Halt, Handling};

const LIBC: &str = "/lib/libc.so.6";
const MUSL: &str = "/lib/ld-musl-x86_64.so.1";
const OWN: &str = "/bin/x";
/// In a static program.
const MUSLS: Halt = Halt {
    is_static: true,
    begins_as_musl: true,
    is_among_checks: false,
    reads_block_headers: false,
    is_behind_stack_check: false,
};

/// An abort with this message. The last `own` frames are the program's own, the others libc's.
fn said(message: &str, frames: &[&str], own: usize) -> Case {
    let modules = (0..frames.len()).map(|frame| if frame + own < frames.len() { LIBC } else { OWN }).collect();
    let abort_message = (!message.is_empty()).then(|| message.to_owned());
    Case { modules, abort_message, ..signal(6, -6) }.called(frames)
}

fn libc() -> Vec<Case> {
    let check = |message, function| said(message, &["raise", "abort", "__fortify_fail", function, "main"], 1);
    vec![
        said("*** stack smashing detected ***: terminated", &["abort", "__stack_chk_fail", "copy", "main"], 2),
        check("*** buffer overflow detected ***: terminated", "__strcpy_chk"),
        check("*** longjmp causes uninitialized stack frame ***: terminated", "____longjmp_chk"),
        check("", "__fdelt_chk"),
        check("*** %n in writable segment detected ***", "?"),
        check("*** invalid open call: O_CREAT without mode ***: terminated", "__open_2"),
        said("free(): invalid pointer", &["abort", "__libc_message", "malloc_printerr", "_int_free", "main"], 1),
        said("x: x.c:7: check: Assertion `fine' failed", &["abort", "__assert_fail", "check", "main"], 2),
        said("FATAL: exception not rethrown", &["abort", "__libc_fatal", "unwind_cleanup", "main"], 1),
        said("", &["raise", "abort", "give_up", "main"], 2),
        said("", &["raise", "abort", "malloc", "main"], 2),
        said("free(): invalid pointer", &["raise", "abort", "give_up", "main"], 2),
        said("", &["raise", "abort", "?"], 1),
        said("", &["?"], 1),
    ]
}

fn halts() -> Vec<Case> {
    let halt =
        |module, frames: &[&str]| Case { modules: vec![module, OWN], ..general_protection(&[0xf4]) }.called(frames);
    vec![
        halt(MUSL, &["__stack_chk_fail", "copy"]),
        halt(MUSL, &["get_meta", "main"]),
        halt(MUSL, &["?", "main"]),
        halt(OWN, &["?", "main"]),
        Case {
            code: vec![0xf4, 0xc3],
            halt: Some(Halt { is_behind_stack_check: true, ..MUSLS }),
            ..halt(OWN, &["?", "?"])
        },
        Case { halt: Some(Halt { is_among_checks: true, reads_block_headers: true, ..MUSLS }), ..halt(OWN, &["?"]) },
        Case { halt: Some(Halt { is_among_checks: true, ..MUSLS }), ..halt(OWN, &["?"]) },
        Case { halt: Some(MUSLS), ..halt(OWN, &["?"]) },
        Case { pid_in_namespace: Some(1), ..halt(LIBC, &["abort", "give_up", "main"]) },
        halt(LIBC, &["abort", "give_up", "main"]),
    ]
}

fn cxx() -> Vec<Case> {
    let ended = |frames: &[&str]| {
        let begin =
            ["raise", "abort", "__gnu_cxx::__verbose_terminate_handler()", "__cxxabiv1::__terminate(void (*)())"];
        Case { is_unwindable: true, ..signal(6, -6) }.called(&[&begin, frames].concat())
    };
    let handled = |case: Case, handling: &[Handling]| {
        let before = std::iter::repeat_n(None, case.frames.len() - handling.len());
        Case { handling: before.chain(handling.iter().copied().map(Some)).collect(), ..case }
    };
    let thrown = ended(&["std::terminate()", "__cxa_throw", "load(int)", "main"]);
    let bound =
        ended(&["?", "__gxx_personality_v0", "?", "_Unwind_RaiseException", "__cxa_throw", "load(int)", "apply(int)"]);
    let again = ended(&["std::terminate()", "__cxa_rethrow", "report()", "main"]);
    let forced =
        ["std::terminate()", "__gxx_personality_v0", "?", "_Unwind_ForcedUnwind", "__pthread_unwind", "leave()"];
    vec![
        thrown.clone(),
        Case { is_unwindable: false, ..thrown },
        handled(bound.clone(), &[Handling::Passes, Handling::Ends]),
        bound,
        ended(&["?", "__gxx_personality_v0", "?", "apply(int)"]),
        ended(&["?", "__gxx_personality_v0", "?", "_Unwind_Resume", "scoped(int)", "apply(int)"]),
        ended(&["std::terminate()", "__clang_call_terminate", "apply(int)", "main"]),
        ended(&["std::terminate()", "__cxa_call_unexpected", "listed(int)", "main"]),
        ended(&forced),
        handled(again.clone(), &[Handling::Passes, Handling::CatchesAll]),
        again,
        ended(&["std::terminate()", "give_up()", "main"]),
        ended(&["std::terminate()", "std::__terminate()", "std::thread::~thread()", "main"]),
        ended(&["std::terminate()", "__cxa_pure_virtual", "run()", "main"]),
    ]
}

fn other_runtimes() -> Vec<Case> {
    let of = |frames: &[&str]| signal(6, -6).called(frames);
    vec![
        of(&["abort", "rust_panic", "core::panicking::panic_fmt", "app::load"]),
        of(&["abort", "std::process::abort", "__rust_alloc_error_handler", "app::main"]),
        of(&["runtime.raise", "runtime.dieFromSignal", "runtime.crash"]),
        of(&[
            "abort",
            "v8::internal::V8::FatalProcessOutOfMemory(char const*)",
            "v8::internal::Heap::FatalProcessOutOfMemory(char const*)",
        ]),
        of(&["abort", "v8::internal::V8::FatalProcessOutOfMemory(char const*)", "main"]),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    [libc(), halts(), cxx(), other_runtimes()].concat()
}
