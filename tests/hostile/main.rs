//! Attacks by neighbours of a program that runs as root, each with its bound. They run on this machine's kernel and need root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacks;
mod automount;
mod bounded;
mod few_tasks;
mod folders;
mod forge;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/harness.rs"]
mod harness;
mod hidden;
mod keeper;
#[path = "../host/keeping.rs"]
mod keeping;
mod kept;
mod limits;
mod names;
mod naming;
mod own;
mod own_name;
mod peers;
mod readers;
#[path = "../host/reasons.rs"]
mod reasons;
#[path = "../vm/refused.rs"]
mod refused;
mod secrets;
mod share;
mod siege;
#[allow(dead_code)] // tests/vm uses the rest
#[path = "../vm/small_cgroup.rs"]
mod small_cgroup;
mod stalled;
mod starved;
#[path = "../host/unmount.rs"]
mod unmount;
