//! Language runtimes and C libraries when they end a process, one file each: the names of their functions, and their messages. The
//! diagnosis judges them. What the kernel programs need of them is in `bpf/include/`.

pub(crate) mod abort_message;
pub(crate) mod cxx;
pub(crate) mod glibc;
pub(crate) mod go;
pub(crate) mod jvm;
pub(crate) mod message;
pub(crate) mod musl;
pub(crate) mod rust;
pub(crate) mod stack;
pub(crate) mod v8;

use crate::evidence::File;

/// GLib's g_assert().
const GLIB_ASSERT: [&str; 2] = ["g_assertion_message", "g_assertion_message_expr"];

/// A function that reports a failed assertion.
pub(crate) fn is_assertion(function: &str) -> bool {
    glibc::ASSERT.contains(&function) || cxx::ASSERT.contains(&function) || GLIB_ASSERT.contains(&function)
}

/// Is this file a C library?
pub(crate) fn is_libc(file: &File) -> bool {
    let name = file.path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let is_older =
        name.strip_prefix("libc-").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    name.starts_with("libc.so") || is_older || musl::is_file(name)
}

/// Is this file part of what C++ ends a program with: its library, the unwinder, libc?
pub(crate) fn is_cxx_runtime(file: &File) -> bool {
    let name = file.path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let begins =
        ["libstdc++.so", "libgcc_s.so", "libc++.so", "libc++abi.so", "libunwind.so", "libpthread", "libpthread-"];
    is_libc(file) || begins.iter().any(|begin| name.starts_with(begin))
}

/// A function of libc that takes a pointer to a string or to memory, and knows nothing of the memory there: `__strlen_avx2`.
pub(crate) fn is_string_function(function: &str) -> bool {
    let name = glibc::without_version(function).trim_start_matches('_');
    ["str", "mem", "wcs", "wmem", "rawmem", "stp", "bcmp", "bcopy", "bzero"].iter().any(|begin| name.starts_with(begin))
}

/// A function that every abort goes through, whatever the reason.
pub(crate) fn is_abort(function: &str) -> bool {
    glibc::ABORT.contains(&function) || rust::ABORT.contains(&function)
}
