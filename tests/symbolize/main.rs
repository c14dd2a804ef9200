//! `faultline symbolize`, and names from debuginfod servers: Debian's own, and such as answer in bad faith or not at all. addr2line is the
//! oracle. Needs no privileges.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_servers;
#[allow(dead_code)] // tests/host uses the rest
mod lab;
mod names;
mod secure;
mod survey;
