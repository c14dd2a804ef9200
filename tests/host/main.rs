//! Tests on real crashes that don't depend on the kernel: they run on this machine's kernel and need root. The others are in `tests/vm`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod command;
#[path = "../vm/compile.rs"]
mod compile;
mod descent;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/harness.rs"]
mod harness;
mod library;
mod memory;
mod output;
mod pagefault;
mod privileges;
#[allow(dead_code, unused_macros, unused_imports)] // the same
#[path = "../vm/runs.rs"]
mod runs;
mod server;
mod signal;
mod strict;
mod summary;
