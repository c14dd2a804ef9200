//! C++: exceptions that are not caught, and calls of functions without a body.

/// Functions that report a failed assertion of the standard library.
pub(super) const ASSERT: [&str; 2] = ["std::__glibcxx_assert_fail", "std::__replacement_assert"];

/// A function that throws.
pub(crate) fn is_throw(function: &str) -> bool {
    ["__cxa_throw", "__cxa_rethrow", "std::rethrow_exception"].contains(&function)
}

/// A function of the standard library that throws its exceptions.
pub(crate) fn is_librarys_throw(function: &str) -> bool {
    function.starts_with("std::__throw_")
}

/// A function that ends the process because there is no other way.
pub(crate) fn is_terminate(function: &str) -> bool {
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
pub(crate) fn is_pure_virtual(function: &str) -> bool {
    ["__cxa_pure_virtual", "__cxa_deleted_virtual"].contains(&function)
}

/// Where a thread is destroyed.
pub(crate) fn is_threads_destructor(function: &str) -> bool {
    function.starts_with("std::thread::~thread")
}
