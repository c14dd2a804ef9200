//! glibc: its checks of stacks, buffers and the heap, which all end in abort().

/// Functions that report a failed assertion.
pub(super) const ASSERT: [&str; 4] = ["__assert_fail", "__assert_fail_base", "__assert_perror_fail", "__assert"];

/// Functions that abort() goes through.
pub(super) const ABORT: [&str; 8] = [
    "abort",
    "raise",
    "gsignal",
    "pthread_kill",
    "__pthread_kill_implementation",
    "__pthread_kill_internal",
    "__libc_message",
    "__libc_message_impl",
];

/// Why it aborts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AbortReason {
    /// malloc found the heap damaged: malloc/malloc.c.
    HeapDamaged,
    /// A stack protector saw an overrun: debug/stack_chk_fail.c.
    StackSmashed,
    /// A buffer would be overrun: debug/chk_fail.c.
    BufferTooSmall,
    /// The frame of setjmp() is gone: debug/longjmp_chk.c.
    LongjmpIntoDeadFrame,
    /// A descriptor that no fd_set can hold: debug/fdelt_chk.c.
    DescriptorTooLarge,
    /// `%n` in a format that may have been made: stdio-common/vfprintf-process-arg.c.
    UnsafeFormat,
    /// Another check of what it was called with: debug/fortify_fail.c.
    CheckFailed,
    /// An assertion failed: assert/assert.c.
    AssertionFailed,
    /// It can't go on: __libc_fatal(), sysdeps/posix/libc_fatal.c.
    GaveUp,
}

/// What a message means.
pub(crate) fn said(message: &str) -> AbortReason {
    const HEAP: [&str; 11] = [
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
        "Fatal glibc error: malloc",
    ];
    match message {
        _ if HEAP.iter().any(|begin| message.starts_with(begin)) => AbortReason::HeapDamaged,
        _ if message.starts_with("*** stack smashing detected ***") => AbortReason::StackSmashed,
        _ if message.starts_with("*** buffer overflow detected ***") => AbortReason::BufferTooSmall,
        _ if message.starts_with("*** longjmp causes uninitialized stack frame ***") => {
            AbortReason::LongjmpIntoDeadFrame
        }
        _ if message.starts_with("*** bit out of range 0 - FD_SETSIZE") => AbortReason::DescriptorTooLarge,
        _ if message.starts_with("*** %n in writable segment") => AbortReason::UnsafeFormat,
        _ if message.starts_with("*** ") => AbortReason::CheckFailed,
        _ if message.contains(": Assertion `") && message.trim_end_matches('.').ends_with("' failed") => {
            AbortReason::AssertionFailed
        }
        _ => AbortReason::GaveUp,
    }
}

/// What the check of this function of libc's, `__strcpy_chk`, is of.
pub(crate) fn checks(function: &str) -> AbortReason {
    match function.trim_start_matches('_') {
        "longjmp_chk" => AbortReason::LongjmpIntoDeadFrame,
        "fdelt_chk" | "fdelt_warn" => AbortReason::DescriptorTooLarge,
        _ => AbortReason::BufferTooSmall,
    }
}

/// A function that all its messages go through.
pub(crate) fn is_message(function: &str) -> bool {
    ["__libc_message", "__libc_message_impl", "__libc_fatal", "__libc_assert_fail"].contains(&function)
}

/// What is called where a stack protector saw an overrun.
pub(crate) fn is_stack_check(function: &str) -> bool {
    ["__stack_chk_fail", "__stack_chk_fail_local"].contains(&function)
}

/// What is called where a buffer would be overrun, or was (_FORTIFY_SOURCE).
pub(crate) fn is_fortify(function: &str) -> bool {
    ["__fortify_fail", "__fortify_fail_abort", "__chk_fail"].contains(&function)
}

/// A function that checks what it is given: the size of the buffer that it writes to, `__strcpy_chk`, and others.
pub(crate) fn is_checked(function: &str) -> bool {
    let is_check = function.ends_with("_chk") || function == "__fdelt_warn";
    function.starts_with("__") && is_check && function != "__chk_fail"
}

/// What is called where the size of a buffer doesn't do, or a descriptor: `*** buffer overflow detected ***`.
pub(crate) fn is_size_check(function: &str) -> bool {
    function == "__chk_fail"
}

/// A function that stands between abort() and the program in a static one: names of the implementation's own (C11 7.1.3), and those that it
/// has for what checks.
pub(crate) fn is_inner(function: &str) -> bool {
    let is_own = function.starts_with('_') || ABORT.contains(&function) || is_malloc(function);
    is_own || is_malloc_check(function) || super::is_string_function(function)
}

/// Where malloc itself reports that the heap is damaged.
pub(crate) fn is_malloc_check(function: &str) -> bool {
    ["malloc_printerr", "__malloc_assert"].contains(&function)
}

/// A function of malloc.
pub(crate) fn is_malloc(function: &str) -> bool {
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
    MALLOC.contains(&function)
}

/// A symbol without its version and without the prefix of those that libc calls itself by.
pub(crate) fn without_version(symbol: &str) -> &str {
    let name = symbol.split_once('@').map_or(symbol, |(name, _)| name);
    name.strip_prefix("__GI_").unwrap_or(name)
}
