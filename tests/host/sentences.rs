//! Programs that libraries end, or that look like that, and what is said of each. `tests/vm/sentences.rs` has those that the kernel ends.

use macro_rules_attribute::apply;

use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, programs};
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

#[apply(watch_test!)]
fn terminate_is_called() {
    let scratch = Scratch::new();
    let program = scratch.path("terminate");
    compile("terminate.cc", &program, &["-pthread", "-lstdc++"]);
    compare(
        &program,
        &[
            ("uncaught", "uncaught_exception", "certain", "a C++ exception thrown in load that nobody catches"),
            ("noexcept", "noexcept_violated", "certain", "thrown in load met apply, which it may not leave"),
            ("scoped", "noexcept_violated", "certain", "on its way through scoped met apply_scoped, which it may"),
            ("destructor", "noexcept_violated", "certain", "thrown in load met Thrower::~Thrower(), which it may"),
            ("rethrow", "failed_rethrow", "certain", "thrown again in report (`throw;`), and there is none"),
            ("by-hand", "terminate_called", "certain", "calls std::terminate() in give_up:"),
            ("cancel", "thread_end_through_noexcept", "certain", "the end of the thread by pthread_cancel() met"),
            ("exit", "thread_end_through_noexcept", "certain", "the end of the thread by pthread_exit() met"),
            ("joinable", "joinable_thread", "certain", "a std::thread was destroyed before"),
            ("handler", "uncaught_exception", "certain", "a C++ exception thrown in load that nobody catches"),
            ("swallow", "abort", "certain", "FATAL: exception not rethrown: libc gave up, called in swallow"),
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
