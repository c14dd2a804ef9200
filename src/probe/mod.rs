//! The only code that touches libbpf: open, plan, load, attach each, poll, detach.

pub mod abi;
pub mod call;
mod counters;
pub mod crash;
pub mod doctor;
mod filter;
mod groups;
mod load;
pub mod losses;
pub mod memory;
mod object;
pub mod pagefault;
mod pattern;
mod perf;
mod ring;
pub mod signal;
mod tracefs;
mod typed;
mod types;

pub use counters::Counters;
pub use filter::{Filter, FilterError};
pub use groups::{Group, Groups, StackFrame};
pub use losses::{Losses, Shown};
pub use object::Build;
pub use ring::Ring;
pub(crate) use tracefs::Tracefs;
pub(crate) use types::kernel_types;
