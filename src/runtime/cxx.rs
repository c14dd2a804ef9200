//! C++: exceptions that nobody catches, and calls that have no function.

/// What reports a failed assertion of the standard library.
pub(super) const ASSERT: [&str; 2] = ["std::__glibcxx_assert_fail", "std::__replacement_assert"];

/// What throws.
pub fn is_throw(function: &str) -> bool {
    ["__cxa_throw", "__cxa_rethrow", "std::rethrow_exception"].contains(&function)
}

/// A function of the standard library that throws its exceptions.
pub fn is_librarys_throw(function: &str) -> bool {
    function.starts_with("std::__throw_")
}

/// What ends the process where there is no other way.
pub fn is_terminate(function: &str) -> bool {
    const TERMINATE: [&str; 5] = [
        "std::terminate",
        "__cxxabiv1::__terminate",
        "__gnu_cxx::__verbose_terminate_handler",
        "__cxa_call_terminate",
        "__clang_call_terminate",
    ];
    TERMINATE.contains(&function)
}

/// What is called in place of a virtual function that has no body.
pub fn is_pure_virtual(function: &str) -> bool {
    ["__cxa_pure_virtual", "__cxa_deleted_virtual"].contains(&function)
}

/// Where a thread is destroyed.
pub fn is_threads_destructor(function: &str) -> bool {
    function.starts_with("std::thread::~thread")
}
