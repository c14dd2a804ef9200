//! What doesn't depend on the kernel, on real crashes on this machine's own: needs root. The rest is in `tests/vm`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod command;
#[path = "../vm/compile.rs"]
mod compile;
mod descent;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/harness.rs"]
mod harness;
mod memory;
mod output;
mod pagefault;
mod privileges;
mod server;
mod signal;
mod strict;
mod summary;
