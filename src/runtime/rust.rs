//! Rust: panics that end the process, and failed allocations.

/// Functions that an abort goes through.
pub(super) const ABORT: [&str; 3] =
    ["std::process::abort", "std::sys::pal::unix::abort_internal", "std::sys::unix::abort_internal"];

/// A function that is called if memory could not be allocated.
pub(crate) fn is_allocation_error(function: &str) -> bool {
    ["alloc::alloc::handle_alloc_error", "std::alloc::rust_oom", "__rust_alloc_error_handler", "__rdl_oom"]
        .contains(&function)
}

/// A function of a panic. Not all of std::panicking: every Rust program runs below `std::panicking::try`.
pub(crate) fn is_panic(function: &str) -> bool {
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
    WHOLE.contains(&function) || BEGIN.iter().any(|begin| function.starts_with(begin))
}

/// A function that stands between the panic and the function that panicked.
pub(crate) fn is_panic_machinery(function: &str) -> bool {
    is_panic(function) || function.starts_with("std::panicking::") || function.contains("__rust_end_short_backtrace")
}
