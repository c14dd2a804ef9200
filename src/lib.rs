//! faultline reports what died on a Linux host, why and how often, from inside the kernel.
//!
//! Two tracers are public, each with an example; whatever else the `faultline` command does is private:
//!
//! - [`crash::Tracer`] reports processes that die by a signal, with their frames and the likely cause.
//! - [`memory::Tracer`] keeps every page of a process that becomes executable.
//!
//! Each runs on a thread of its own, and its [`crash::Tracing`] or [`memory::Tracing`] is an iterator of what it finds. When it is stopped, it
//! returns what is left and the [`Losses`] by reason. An [`Error`] is one of few kinds that a program can act on.
//!
//! ```no_run
//! for crash in faultline::crash::Tracer::new().process_name("nginx").start()? {
//!     println!("{} {}: {:?}", crash.comm, crash.signal_name, crash.diagnosis);
//! }
//! # Ok::<(), faultline::Error>(())
//! ```
//!
//! Both need CAP_BPF and CAP_PERFMON, and Linux 5.10 or later.
//!
//! # How it works
//!
//! The kernel programs in `bpf/` filter, count and take samples; `probe` loads them, `process` and `symbol` name what they saw, and
//! `output` writes it as text or JSON Lines. One module a command. Data flows one way: kernel event, sample, record, output.
#![warn(missing_docs)]

/// A line for the person, on standard error, in one write: the watched command's own lines don't come in between. Nobody
/// reading it is no reason to end, as `eprintln!` would, nor to wait for long.
macro_rules! say {
    ($($word:tt)*) => {{
        $crate::say::line(format!($($word)*));
    }};
}

mod agent;
mod arch;
mod call;
mod cgroup;
mod cli;
mod command;
pub mod crash;
mod debuginfod;
mod diagnosis;
mod doctor;
mod errno;
mod error;
mod evidence;
mod flags;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod hex;
mod history;
mod host;
mod identity;
#[doc(hidden)]
pub mod internals;
mod ledger;
pub mod memory;
mod naming;
mod nowhere;
mod offline;
mod options;
mod output;
mod page;
mod pagefault;
mod place;
mod probe;
mod process;
mod record;
#[cfg(test)]
#[path = "../tests/render.rs"]
mod render;
mod report;
mod runtime;
mod say;
mod session;
mod siginfo;
mod signal;
mod stop;
mod survey;
mod symbol;
mod symbolize;
mod terminal;
mod text;
mod time;
mod tracing;
mod watch;

#[doc(hidden)]
pub use cli::main;
pub use error::Error;
pub use time::Timestamp;
pub use tracing::Losses;
