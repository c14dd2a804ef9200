//! Tests on real crashes that don't depend on the kernel: they run on this machine's kernel and need root. The others are in `tests/vm`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adversary;
mod agent;
mod agent_counts;
mod agent_lines;
mod alike;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/built.rs"]
mod built;
mod call;
#[path = "../vm/capabilities.rs"]
mod capabilities;
mod caught;
mod command;
#[path = "../vm/compile.rs"]
mod compile;
mod debuginfod;
mod descendants;
mod descent;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/faults.rs"]
mod faults;
mod files;
mod filters;
mod gone;
mod groups;
mod guards;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/harness.rs"]
mod harness;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/hidden.rs"]
mod hidden;
mod history;
mod jit;
mod keeping;
#[allow(dead_code)] // tests/symbolize uses the rest
#[path = "../symbolize/lab.rs"]
mod lab;
mod library;
mod mappings;
mod memory;
mod memory_pages;
mod messages;
mod nameless;
mod naming;
mod near;
mod oracle;
mod output;
mod overlay;
mod pagefault;
mod pagefault_counts;
mod privileges;
mod reasons;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/recorder.rs"]
mod recorder;
#[path = "../vm/refused.rs"]
mod refused;
mod rows;
mod runtimes;
#[path = "../vm/said.rs"]
mod said;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/sent.rs"]
mod sent;
mod sentences;
mod server;
mod sharing;
mod signal;
mod signal_counts;
#[allow(dead_code)] // the other tests use the rest
#[path = "../vm/storm.rs"]
mod storm;
mod strict;
mod summary;
mod summary_counts;
mod table;
mod unmount;
