//! faultline reports what died on a Linux host, why and how often, from inside the kernel.
//!
//! The kernel programs in `bpf/` filter, count and take samples; this library loads them ([`probe`]), names what they saw
//! ([`process`], [`symbol`]) and hands it on as text or JSON Lines ([`output`]). One module a command: [`agent`], [`call`],
//! [`crash`], [`doctor`], [`memory`], [`pagefault`], [`report`], [`signal`]. Data flows one way: kernel event, sample, record, output.
#![warn(missing_docs)]

/// A line for the person, on standard error, in one write: the watched command's own lines don't come in between. Nobody
/// reading it is no reason to end, as `eprintln!` would.
#[macro_export]
macro_rules! say {
    ($($word:tt)*) => {{
        use std::io::Write as _;
        let line = format!($($word)*) + "\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}

pub mod agent;
pub mod arch;
pub mod call;
pub mod command;
pub mod crash;
mod diagnosis;
pub mod doctor;
mod errno;
mod evidence;
mod flags;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod hex;
pub mod host;
pub mod ledger;
pub mod memory;
pub mod options;
pub mod output;
mod page;
pub mod pagefault;
pub mod probe;
pub mod process;
pub mod record;
pub mod report;
mod runtime;
pub mod session;
pub mod siginfo;
pub mod signal;
pub mod symbol;
mod text;
mod time;
pub mod watch;
