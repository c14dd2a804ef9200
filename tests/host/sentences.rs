//! Programs that libraries end, or that look like that, and what is said of each. `tests/vm/sentences.rs` has those that the kernel ends.

use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::{compile, compile_with};
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, programs, run};
use crate::said::compare;

#[apply(watch_test!)]
fn libc_gives_up() {
    compare(
        &programs().join("gives-up"),
        &[
            (
                "format",
                "unsafe_format",
                "certain",
                "a format with %n lies in writable memory, where anybody may have made it, called in print",
            ),
            (
                "longjmp",
                "longjmp_into_dead_frame",
                "certain",
                "longjmp() leads into a function that has returned, called in resume",
            ),
            (
                "fd-set",
                "descriptor_out_of_range",
                "certain",
                "a file descriptor is negative or too large for an fd_set",
            ),
            ("overflow", "buffer_overflow", "certain", "libc's check of a buffer's size failed: "),
            (
                "mode",
                "libc_check",
                "certain",
                "O_CREAT or O_TMPFILE without mode ***: terminated: libc's check of what",
            ),
            ("twice", "heap_corruption", "certain", "malloc found the heap damaged"),
            ("asserts", "failed_assertion", "certain", "' failed: an assertion failed in check"),
            ("after", "abort", "certain", "calls abort() in give_up"),
            ("raises", "abort", "likely", "ended itself with SIGABRT, as abort() and failed checks of libraries do"),
            ("itself", "abort", "certain", "calls abort() in give_up"),
        ],
    );
}

#[apply(watch_test!)]
fn a_static_libc_gives_up() {
    compare(
        &programs().join("gives-up-static"),
        &[
            ("format", "abort", "certain", "libc gave up, and what it said is not known, called in print"),
            ("longjmp", "longjmp_into_dead_frame", "certain", "into a function that has returned, called in resume"),
            ("fd-set", "descriptor_out_of_range", "certain", "too large for an fd_set (FD_SETSIZE), called in watch"),
            (
                "overflow",
                "buffer_overflow",
                "certain",
                "libc's check of a buffer's size failed: it would be overrun, called",
            ),
            ("mode", "libc_check", "likely", "libc's check of what it was called with failed, called in main"),
            ("twice", "heap_corruption", "certain", "a double free or a free of no block, called in main"),
            ("asserts", "failed_assertion", "certain", "an assertion failed in check"),
            ("itself", "abort", "certain", "calls abort() in give_up"),
        ],
    );
}

/// musl's libc halts where a check of it fails. So may a program, in the same way; whose `hlt` it is, is told in each kind of program, with its
/// symbols and without.
#[apply(watch_test!)]
fn libc_halts_or_the_program_itself_does() {
    let scratch = Scratch::new();
    let linked = |compiler: &str, name: &str, arguments: &[&str]| {
        let (program, stripped) = (scratch.path(name), scratch.path(&format!("{name}-stripped")));
        compile_with(compiler, "halts.c", &program, &[&["-O2", "-fstack-protector-all"], arguments].concat());
        assert!(Command::new("strip").arg("-o").arg(&stripped).arg(&program).status().unwrap().success());
        (program, stripped)
    };
    let itself = ("privileged_instruction", "executes hlt, which only the kernel may");
    let own = |confidence| ["itself", "returns", "among"].map(|way| (way, itself.0, confidence, itself.1));
    let smashed = "a buffer on the stack was overrun";
    let heap = ("heap_corruption", "halts among many checks that end so, as musl's malloc does");
    // Its libc has names of what it exports alone.
    let musl = linked("musl-gcc", "musl", &[]);
    for program in [musl.0, musl.1] {
        let musls = [
            ("overrun", heap.0, "likely", heap.1),
            ("foreign", heap.0, "likely", heap.1),
            ("smash", "smashed_stack", "certain", smashed),
            ("join", "libc_gave_up", "likely", "libc halts, as musl does"),
        ];
        compare(&program, &[&musls[..], &own("certain")].concat());
    }
    let musl = linked("musl-gcc", "musl-static", &["-static"]);
    let named = [
        ("overrun", heap.0, "likely", "musl's get_meta found the heap damaged and halts"),
        ("smash", "smashed_stack", "certain", "a buffer on the stack was overrun in copy: its"),
    ];
    compare(&musl.0, &[&named[..], &own("certain")].concat());
    let gave_up = ("libc_gave_up", "likely", "halts in a program that holds musl's libc");
    let unnamed = [
        ("overrun", heap.0, "likely", heap.1),
        ("foreign", heap.0, "likely", heap.1),
        ("smash", "smashed_stack", "likely", "as musl's __stack_chk_fail() does: a buffer on the stack was overrun"),
        ("join", gave_up.0, gave_up.1, gave_up.2),
        ("itself", gave_up.0, gave_up.1, gave_up.2),
        ("returns", gave_up.0, gave_up.1, gave_up.2),
        ("among", gave_up.0, gave_up.1, gave_up.2),
    ];
    compare(&musl.1, &unnamed);
    for (arguments, name, without_names) in
        [(&["-pthread"][..], "glibc", "certain"), (&["-static", "-pthread"], "glibc-static", "likely")]
    {
        let glibc = linked("gcc", name, arguments);
        compare(&glibc.0, &own("certain"));
        compare(&glibc.1, &own(without_names));
    }
}

#[apply(watch_test!)]
fn terminate_is_called() {
    let scratch = Scratch::new();
    let program = scratch.path("terminate");
    compile("terminate.cc", &program, &["-pthread", "-lstdc++"]);
    compare(
        &program,
        &[
            ("uncaught", "uncaught_exception", "certain", "a C++ exception thrown in load(int) that nobody catches"),
            ("noexcept", "noexcept_violated", "certain", "thrown in load(int) met apply(int), which it may not leave"),
            ("scoped", "noexcept_violated", "certain", "its way through scoped(int) met apply_scoped(int)"),
            ("destructor", "noexcept_violated", "certain", "thrown in load(int) met Thrower::~Thrower(), which it"),
            ("rethrow", "failed_rethrow", "certain", "thrown again in report() (`throw;`), and there is none"),
            ("again", "uncaught_exception", "certain", "exception thrown again in pass_on(int) that nobody catches"),
            ("by-hand", "terminate_called", "certain", "calls std::terminate() in give_up():"),
            ("cancel", "thread_end_through_noexcept", "certain", "the end of the thread by pthread_cancel() met"),
            ("exit", "thread_end_through_noexcept", "certain", "the end of the thread by pthread_exit() met"),
            ("joinable", "joinable_thread", "certain", "a std::thread was destroyed before"),
            ("handler", "uncaught_exception", "certain", "a C++ exception thrown in load(int) that nobody catches"),
            ("swallow", "abort", "certain", "FATAL: exception not rethrown: libc gave up, called in swallow(void*)"),
        ],
    );
}

/// The destructor of a thread is inlined, and nothing tells it from its caller.
#[apply(watch_test!)]
fn what_is_inlined_calls_terminate() {
    let scratch = Scratch::new();
    let program = scratch.path("inlined");
    compile("terminate.cc", &program, &["-O2", "-g0", "-pthread", "-lstdc++"]);
    compare(
        &program,
        &[
            ("joinable", "terminate_called", "certain", "what is inlined there (a std::thread that is not joined), or"),
            ("uncaught", "uncaught_exception", "certain", "that nobody catches"),
            ("noexcept", "noexcept_violated", "certain", "met apply(int), which it may not leave"),
        ],
    );
}

/// What libc said before the program survived that is of no later end, and stands in no record of one.
#[apply(watch_test!)]
fn an_older_message_is_of_no_later_end() {
    let (scratch, program) = (Scratch::new(), programs().join("gives-up"));
    let lines = ["exits", "after", "raises"].map(|way| format!("{} {way}", program.display()));
    let all = run(&scratch.script("all", &(lines.join("\n") + "\nexit 0")), &["-t"]);
    let crashes: Vec<&Value> = all.records.iter().filter(|record| record["type"] == "crash").collect();
    assert_eq!(crashes.len(), 2, "{crashes:#?}");
    for crash in crashes {
        assert!(crash["abort_message"].is_null(), "{crash:#}");
    }
}

/// The compiler makes one call of abort() of two, of which debug information knows one.
#[apply(watch_test!)]
fn what_is_inlined_may_share_its_call() {
    let scratch = Scratch::new();
    let program = scratch.path("merged");
    compile("merged.c", &program, &["-O2", "-g"]);
    let shared = "(or what else is inlined into work)";
    compare(
        &program,
        &[
            ("first", "abort", "certain", shared),
            ("second", "abort", "certain", shared),
            ("alone", "abort", "certain", "calls abort() in alone"),
        ],
    );
}

/// SIGABRT does not end it, so that abort() halts: a fault, whose reason is that of the abort.
#[apply(watch_test!)]
fn process_1_gives_up() {
    compare(
        &programs().join("gives-up"),
        &[
            ("itself first", "abort", "certain", "calls abort() in give_up: SIGABRT does not end process 1"),
            (
                "asserts first",
                "failed_assertion",
                "certain",
                "an assertion failed in check; SIGABRT does not end process 1",
            ),
        ],
    );
}
