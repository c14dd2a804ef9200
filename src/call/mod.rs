//! `faultline call`: the last kernel calls of each task, told when it crashes.
mod decode;
mod functions;
mod plan;
mod record;
mod select;
mod shape;
mod structs;
mod syscalls;
pub use record::Call;
