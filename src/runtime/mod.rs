//! Language runtimes and C libraries when they end a process, one file each: the names of their functions, and their messages. The
//! diagnosis judges them. What the kernel programs need of them is in `bpf/include/`.

pub mod abort_message;
pub mod cxx;
pub mod glibc;
pub mod musl;
pub mod rust;

/// GLib's g_assert().
const GLIB_ASSERT: [&str; 2] = ["g_assertion_message", "g_assertion_message_expr"];

/// A function that reports a failed assertion.
pub fn is_assertion(function: &str) -> bool {
    glibc::ASSERT.contains(&function) || cxx::ASSERT.contains(&function) || GLIB_ASSERT.contains(&function)
}

/// A function that every abort goes through, whatever the reason.
pub fn is_abort(function: &str) -> bool {
    glibc::ABORT.contains(&function) || rust::ABORT.contains(&function)
}
