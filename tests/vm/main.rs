//! Tests on real crashes: they need root and a kernel to load programs into, this machine's or a guest's of the VM matrix.
//!
//! No test is skipped: a test that can't run fails. The programs that die are in `tests/programs`, each with its ground truth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod attach;
mod behaviour;
mod call;
mod call_cause;
mod compile;
mod crash;
mod doctor;
mod env;
mod files;
mod harness;
mod memory;
mod namespace;
mod oracle;
mod pagefault;
mod runs;
mod runtimes;
mod signal;
mod snapshot;
mod summary;
