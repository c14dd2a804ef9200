//! Language runtimes and C libraries when they end a process, one file each: the names of their functions, and their messages. The
//! diagnosis judges them. What the kernel programs need of them is in `bpf/include/`.

pub(crate) mod abort_message;
pub(crate) mod cxx;
pub(crate) mod glibc;
pub(crate) mod musl;
pub(crate) mod rust;

/// GLib's g_assert().
const GLIB_ASSERT: [&str; 2] = ["g_assertion_message", "g_assertion_message_expr"];

/// A function that reports a failed assertion.
pub(crate) fn is_assertion(function: &str) -> bool {
    glibc::ASSERT.contains(&function) || cxx::ASSERT.contains(&function) || GLIB_ASSERT.contains(&function)
}

/// A function that every abort goes through, whatever the reason.
pub(crate) fn is_abort(function: &str) -> bool {
    glibc::ABORT.contains(&function) || rust::ABORT.contains(&function)
}
