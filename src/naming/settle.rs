//! What each child does first, and how it ends with the process that counts.

use std::ffi::CStr;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};

/// The first thing that a child does: it lives as long as the process that counts, whatever signals come, and has no descriptor but its
/// sockets.
pub(super) fn settle(name: &CStr) {
    // Whoever started us may have left some open, and everything of ours closes by itself at an exec.
    // SAFETY: nothing of this program has opened a descriptor above the standard ones yet, so that nobody loses one that it owns.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    // Each of these may fail without harm: it is named otherwise, or ends when its socket is closed.
    let _ = rustix::thread::set_name(name);
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE] {
        // SAFETY: SIG_IGN installs no handler, so no code of ours runs at any time that it must be safe for.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
    // The end of a child is no crash of a program, and makes no record: it ends by itself, and the main process sees that.
    let leave = SigAction::new(SigHandler::Handler(leave), SaFlags::SA_ONSTACK, SigSet::all());
    for fatal in [
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
        Signal::SIGSYS,
        Signal::SIGTRAP,
        Signal::SIGXFSZ,
    ] {
        // SAFETY: the handler calls _exit(2) alone, which may be called at any time. It runs on the stack that Rust's runtime has made for
        // a main thread whose own stack is used up.
        let _ = unsafe { sigaction(fatal, &leave) };
    }
    let _ = SigSet::empty().thread_set_mask();
    end_with_parent();
}

extern "C" fn leave(_: libc::c_int) {
    // SAFETY: no code of ours runs after it.
    unsafe { libc::_exit(1) }
}

/// A change of user or capabilities takes it back.
pub(super) fn end_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}
