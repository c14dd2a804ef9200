//! The only code that touches libbpf: open, plan, load, attach each, poll, detach.

pub mod abi;
pub mod call;
mod counters;
pub(crate) mod crash;
pub(crate) mod doctor;
mod engine;
mod filter;
mod hook;
mod kernel;
mod kernel_code;
mod load;
pub(crate) mod losses;
mod many;
pub(crate) mod memory;
mod object;
pub(crate) mod pagefault;
mod pattern;
mod perf;
pub(crate) mod programs;
mod ring;
pub(crate) mod signal;
mod table;
mod tracefs;
mod typed;
mod types;

pub(crate) use crash::Counters;
pub(crate) use crash::{Counts, Group, GroupId, SHARED, StackFrame};
pub(crate) use engine::Descendants;
pub use engine::Setup;
pub use filter::Filter;
pub use hook::{Attach, Way};
pub(crate) use losses::{LossOutput, Losses};
pub(crate) use object::Build;
pub(crate) use ring::Ring;
pub(crate) use tracefs::Tracefs;
pub(crate) use types::kernel_types;
