//! Tests on real crashes: they need root and a kernel to load programs into, this machine's or a guest's of the VM matrix.
//!
//! No test is skipped: a test that can't run fails. The programs that die are in `tests/programs`, each with its ground truth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attach;
mod behaviour;
mod built;
mod call;
mod call_cause;
mod call_function;
mod call_output;
mod call_program;
mod capabilities;
mod compile;
mod crash;
mod doctor;
mod env;
mod faults;
mod files;
mod harness;
mod hidden;
mod memory;
mod namespace;
mod naming;
#[cfg(target_arch = "aarch64")]
mod oracle;
mod own_account;
mod pagefault;
mod recorder;
mod refused;
mod runtimes;
mod said;
mod sent;
mod sentences;
mod signal;
#[allow(dead_code)] // tests/hostile uses the rest
mod small_cgroup;
mod snapshot;
mod storm;
mod summary;
