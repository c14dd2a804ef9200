//! C++: exceptions that are not caught, and calls of functions without a body.

use crate::evidence::Frame;
use crate::probe::abi::fl_crash;

/// As a record names it.
pub(crate) const RUNTIME: &str = "c++";

/// What the exception said that std::terminate() was called for. Not of an abort() while an exception was being handled.
pub(super) fn what(raw: &fl_crash, frames: &[Frame]) -> Option<String> {
    let name = |frame: &Frame| frame.function.as_ref().map(|function| function.name.clone());
    // Where libstdc++ is stripped, std::terminate() and what calls it may have no names. While the search for a handler is on the stack,
    // nothing else can abort.
    let is_end = |name: String| {
        let name = name.split('(').next().unwrap_or_default();
        is_begin_of_end(name) || is_compilers_terminate(name) || is_throw(name) || is_personality(name)
    };
    frames.iter().filter_map(name).any(is_end).then(|| raw.text(&raw.cxx_what))?
}

/// Functions that report a failed assertion of the standard library.
pub(super) const ASSERT: [&str; 2] = ["std::__glibcxx_assert_fail", "std::__replacement_assert"];

/// A function that throws.
pub(crate) fn is_throw(function: &str) -> bool {
    ["__cxa_throw", "__cxa_rethrow", "std::rethrow_exception"].contains(&function)
}

/// A function of the standard library that throws its exceptions.
pub(crate) fn is_librarys_throw(function: &str) -> bool {
    const OTHERS: [&str; 4] =
        ["__cxa_bad_cast", "__cxa_bad_typeid", "__cxa_throw_bad_array_new_length", "__cxa_throw_bad_array_length"];
    ["std::__throw_", "std::__1::__throw_"].iter().any(|begin| function.starts_with(begin))
        || OTHERS.contains(&function)
}

/// A function that throws the current exception again.
pub(crate) fn is_rethrow(function: &str) -> bool {
    function == "__cxa_rethrow"
}

/// A function that begins the end of the process.
pub(crate) fn is_begin_of_end(function: &str) -> bool {
    const BEGIN: [&str; 8] = [
        "std::terminate",
        "std::__terminate",
        "std::unexpected",
        "__cxxabiv1::__terminate",
        "__gnu_cxx::__verbose_terminate_handler",
        "__cxa_call_terminate",
        "__clang_call_terminate",
        "__gxx_personality_v0",
    ];
    BEGIN.contains(&function)
}

/// What a compiler calls where an exception may not leave.
pub(crate) fn is_compilers_terminate(function: &str) -> bool {
    ["__cxa_call_terminate", "__clang_call_terminate"].contains(&function)
}

/// What finds out for each function whether it catches.
pub(crate) fn is_personality(function: &str) -> bool {
    function == "__gxx_personality_v0"
}

/// Unwinding that is no exception's: the end of a thread.
pub(crate) fn is_forced(function: &str) -> bool {
    function.starts_with("_Unwind_ForcedUnwind")
}

/// A thread that ends itself.
pub(crate) fn is_thread_exit(function: &str) -> bool {
    ["pthread_exit", "__pthread_exit"].contains(&function)
}

/// Unwinding goes on after a destructor.
pub(crate) fn is_resume(function: &str) -> bool {
    function == "_Unwind_Resume"
}

/// What is called where an exception leaves that a function does not list.
pub(crate) fn is_unexpected(function: &str) -> bool {
    ["__cxa_call_unexpected", "std::unexpected"].contains(&function)
}

/// A function between the program's own and the end of the process.
pub(crate) fn is_machinery(function: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "__cxxabiv1::__unexpected",
        "__cxxabiv1::failed_throw",
        "demangling_terminate_handler",
        "abort_message",
        "call_terminate",
        "unwind_phase2",
        "unwind_phase2_forced",
        "__pthread_unwind",
        "__do_cancel",
        "sigcancel_handler",
        "unwind_stop",
        "__restore_rt",
    ];
    is_begin_of_end(function)
        || is_throw(function)
        || is_librarys_throw(function)
        || is_unexpected(function)
        || is_thread_exit(function)
        || function.starts_with("_Unwind_")
        || OTHERS.contains(&function)
}

/// What is called in place of a virtual function that has no body.
pub(crate) fn is_pure_virtual(function: &str) -> bool {
    ["__cxa_pure_virtual", "__cxa_deleted_virtual"].contains(&function)
}

/// Where a thread is destroyed.
pub(crate) fn is_threads_destructor(function: &str) -> bool {
    function.starts_with("std::thread::~thread") || function.starts_with("std::thread::operator=")
}
