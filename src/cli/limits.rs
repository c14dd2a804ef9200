//! Limits of the process that would end it without a word.

use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};

/// The stack that all work finds room in, bytes. A debug build needs the most.
const STACK: usize = 8 << 20;

/// With less the work gets a stack of its own, bytes.
const STACK_ENOUGH: u64 = 2 << 20;

/// Does the work where the limits on files and on the stack can't end it. Call it before there are threads.
pub(super) fn within(work: fn() -> ExitCode) -> ExitCode {
    // A file that would become larger than RLIMIT_FSIZE is an error of write(2) then, as a full disk is. The command of `--` gets
    // no blocked signals.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    if getrlimit(Resource::RLIMIT_STACK).is_ok_and(|(soft, _)| soft >= STACK_ENOUGH) {
        return work();
    }
    match std::thread::Builder::new().name("faultline".to_owned()).stack_size(STACK).spawn(work) {
        Ok(thread) => {
            // Signals are the other thread's, which may take them as events.
            let _ = SigSet::all().thread_block();
            thread.join().unwrap_or(ExitCode::from(super::main::FAILED))
        }
        // The limit may be enough.
        Err(_) => work(),
    }
}
