//! Go: the value of the panic that ends a program, as its runtime keeps it.

use crate::probe::abi::{fl_crash, fl_crash_flag, fl_disposition};

/// The function that raises the signal that ends a program: for SIGABRT it is called by what ends one, and by what passes on a signal.
pub(crate) fn is_end(function: &str) -> bool {
    function == "runtime.raise"
}

/// What the panic said that ended the program, if it was a string, an error, or something that describes itself.
pub(super) fn panic(raw: &fl_crash) -> Option<String> {
    // A fault is told as caught with no registers only if it is a panic's: bpf/include/runtime_go.bpf.h.
    let is_fault =
        raw.disposition == fl_disposition::FL_DISPOSED_CAUGHT && raw.flags.0 & fl_crash_flag::FL_HAS_REGISTERS.0 == 0;
    // The runtime raises a signal by a system call of its own. A library in the same process does it in another file.
    let innermost = raw.frames().first()?;
    let is_own = raw.exe != 0 && raw.module(*innermost, false)?.file == raw.exe;
    (is_fault || is_own).then(|| raw.text(&raw.go_panic))?
}
