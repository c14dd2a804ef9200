//! Tests in a kernel that is locked down: a guest that ci/vm boots so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // the other tests use the rest
mod harness;
mod lockdown;
mod snapshot;
