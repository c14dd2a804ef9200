//! musl: if it finds its heap damaged, it executes an instruction that only the kernel may: a_crash(), src/internal/atomic.h.

/// A function of malloc: src/malloc/mallocng/.
pub(crate) fn is_malloc(function: &str) -> bool {
    const MALLOC: [&str; 9] = [
        "get_meta",
        "free",
        "realloc",
        "malloc",
        "__libc_free",
        "__libc_realloc",
        "__libc_malloc_impl",
        "malloc_usable_size",
        "nontrivial_free",
    ];
    MALLOC.contains(&function)
}
