//! Tests in a kernel that is locked down, as ci/guest leaves it: a process of its own, because there is no way back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // the other tests use the rest
mod harness;
mod lockdown;
mod snapshot;
