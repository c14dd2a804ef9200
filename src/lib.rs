//! faultline reports what died on a Linux host, why and how often, from inside the kernel.
//!
//! [`memory::Tracer`] keeps every page of a process that becomes executable. Whatever else the `faultline` command does is private.
//!
//! The kernel programs in `bpf/` filter, count and take samples; `probe` loads them, `process` and `symbol` name what they saw, and
//! `output` writes it as text or JSON Lines. One module a command. Data flows one way: kernel event, sample, record, output.
#![warn(missing_docs)]

/// A line for the person, on standard error, in one write: the watched command's own lines don't come in between. Nobody
/// reading it is no reason to end, as `eprintln!` would.
macro_rules! say {
    ($($word:tt)*) => {{
        use std::io::Write as _;
        let line = format!($($word)*) + "\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}

mod agent;
mod arch;
mod call;
mod cli;
mod command;
pub mod crash;
mod diagnosis;
mod doctor;
mod errno;
mod evidence;
mod flags;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod hex;
mod host;
#[doc(hidden)]
pub mod internals;
mod ledger;
pub mod memory;
mod options;
mod output;
mod page;
mod pagefault;
mod probe;
mod process;
mod record;
#[cfg(test)]
#[path = "../tests/render.rs"]
mod render;
mod report;
mod runtime;
mod session;
mod siginfo;
mod signal;
mod symbol;
mod text;
mod time;
mod watch;

#[doc(hidden)]
pub use cli::main;
