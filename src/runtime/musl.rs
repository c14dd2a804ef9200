//! musl: if it finds its heap damaged, it executes an instruction that only the kernel may: a_crash(), src/internal/atomic.h.

/// Is it musl's file? It is also the dynamic linker.
pub(super) fn is_file(name: &str) -> bool {
    name.starts_with("ld-musl-") || name.starts_with("libc.musl-") || name == "libc.so"
}

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

/// One that no other allocator has: it is musl's wherever it is linked to, unless a program has one of its name.
pub(crate) fn is_own_malloc(function: &str) -> bool {
    is_reserved(function) || ["get_meta", "nontrivial_free"].contains(&function)
}

/// One whose name no program may have (C11 7.1.3).
pub(crate) fn is_reserved(function: &str) -> bool {
    ["__libc_free", "__libc_realloc", "__libc_malloc_impl"].contains(&function)
}
