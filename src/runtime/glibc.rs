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

/// Its messages before an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AbortReason {
    /// malloc found the heap damaged: malloc/malloc.c.
    HeapDamaged,
    /// A stack protector saw an overrun: debug/stack_chk_fail.c.
    StackSmashed,
    /// A buffer would be overrun: debug/chk_fail.c.
    BufferTooSmall,
    /// An assertion failed: assert/assert.c.
    AssertionFailed,
}

/// What a message means.
pub(crate) fn said(message: &str) -> Option<AbortReason> {
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
    match message {
        _ if HEAP.iter().any(|begin| message.starts_with(begin)) => Some(AbortReason::HeapDamaged),
        _ if message.starts_with("*** stack smashing detected ***") => Some(AbortReason::StackSmashed),
        _ if message.starts_with("*** buffer overflow detected ***") => Some(AbortReason::BufferTooSmall),
        _ if message.contains(": Assertion `") && message.ends_with("' failed.") => Some(AbortReason::AssertionFailed),
        _ => None,
    }
}

/// What is called where a stack protector saw an overrun.
pub(crate) fn is_stack_check(function: &str) -> bool {
    ["__stack_chk_fail", "__stack_chk_fail_local"].contains(&function)
}

/// What is called where a buffer would be overrun, or was (_FORTIFY_SOURCE).
pub(crate) fn is_fortify(function: &str) -> bool {
    ["__fortify_fail", "__fortify_fail_abort", "__chk_fail"].contains(&function)
}

/// A function that is given the size of the buffer that it writes to: `__strcpy_chk`.
pub(crate) fn is_checked(function: &str) -> bool {
    function.starts_with("__") && function.ends_with("_chk")
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
