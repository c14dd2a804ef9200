//! Go: the value of the panic that ends a program, as its runtime keeps it, and what its runtime gives up for.

use crate::evidence::Functions;
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_disposition, fl_text};

/// The function that raises the signal that ends a program: for SIGABRT it is called by what ends one, and by what passes on a signal.
pub(crate) fn is_end(function: &str) -> bool {
    function == "runtime.raise"
}

/// A function that is given what the runtime gives up for, and doesn't return.
fn is_throw(function: &str) -> bool {
    ["runtime.throw", "runtime.fatal"].contains(&function)
}

/// Does Go's runtime end the process?
fn ends(raw: &fl_crash) -> bool {
    // A fault is reported as caught without registers only if it became a panic: bpf/include/runtime_go.bpf.h.
    let is_fault =
        raw.disposition == fl_disposition::FL_DISPOSED_CAUGHT && raw.flags.0 & fl_crash_flag::FL_HAS_REGISTERS.0 == 0;
    // The runtime raises a signal by a system call of its own. A library in the same process does it in another file.
    let is_own = || {
        let innermost = raw.frames().first()?;
        Some(raw.exe != 0 && raw.module(*innermost, false)?.file == raw.exe)
    };
    is_fault || is_own().unwrap_or(false)
}

/// What the panic said that ended the program, if it was a string, an error, or something that describes itself.
pub(super) fn panic(raw: &fl_crash) -> Option<String> {
    ends(raw).then(|| raw.text(&raw.go_panic))?
}

/// The texts in the innermost frames.
fn texts(raw: &fl_crash) -> impl Iterator<Item = &fl_text> {
    let is_go = raw.flags.0 & fl_crash_flag::FL_IS_GO.0 != 0;
    raw.texts.iter().filter(move |text| is_go && text.length != 0)
}

/// The return addresses into the functions in whose frames these are, which are to have names.
pub(crate) fn callers(raw: &fl_crash) -> Vec<u64> {
    texts(raw).map(|text| text.slot).collect()
}

/// What the runtime has given up for: a deadlock, concurrent writes of a map. `callers`: the functions of [`callers`].
pub(super) fn thrown(raw: &fl_crash, callers: &[Functions]) -> Option<String> {
    let is = |functions: &Functions| functions.iter().flatten().any(|function| is_throw(&function.name));
    let (text, _) = texts(raw).zip(callers).find(|(_, functions)| is(functions)).filter(|_| ends(raw))?;
    raw.text(text)
}
