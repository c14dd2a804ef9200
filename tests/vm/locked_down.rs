//! Tests in a kernel that ci/guest has locked down. They are a test binary of their own, because a lockdown can't be undone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // the other tests use the rest
mod harness;
mod lockdown;
mod snapshot;
