//! Attacks by neighbours of a program that runs as root, each with its bound. They run on this machine's kernel and need root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacks;
mod bounded;
mod folders;
mod forge;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/harness.rs"]
mod harness;
mod limits;
mod naming;
mod peers;
mod readers;
mod secrets;
mod siege;
mod stalled;
#[path = "../host/unmount.rs"]
mod unmount;
