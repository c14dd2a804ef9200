//! The only code that touches libbpf: open, plan, load, attach each, poll, detach.

pub mod abi;
pub mod call;
mod counters;
pub mod crash;
pub mod doctor;
mod engine;
mod filter;
mod hook;
mod load;
pub mod losses;
pub mod memory;
mod object;
pub mod pagefault;
mod pattern;
mod perf;
mod ring;
pub mod signal;
mod table;
mod tracefs;
mod typed;
mod types;

pub use crash::Counters;
pub use crash::{Group, Groups, StackFrame};
pub use engine::Setup;
pub use filter::Filter;
pub use hook::{Attach, Way};
pub use losses::{Losses, Shown};
pub use object::Build;
pub use ring::Ring;
pub(crate) use tracefs::Tracefs;
pub(crate) use types::kernel_types;
