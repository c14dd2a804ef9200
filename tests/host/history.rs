//! `faultline show` on what the agent has written.

use std::process::Command;

use macro_rules_attribute::apply;

use crate::agent::{Agent, crashes};
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, copy_program};

/// The agent and `crash` record the same death.
#[apply(watch_test!)]
fn show_has_the_text_of_crash() {
    let scratch = Scratch::new();
    let (program, log) = (scratch.path("show-last-5e"), scratch.path("log.jsonl"));
    copy_program("null-write", &program);
    let agent = Agent::start(&["-n", "show-last-5e", "-o", log.to_str().unwrap()]);
    let command = ["crash", "-r", "-t", "--max-stack-depth", "32", "--"].map(str::to_owned);
    let seen = Command::new(FAULTLINE).args(command).arg(&program).watch();
    assert_eq!(seen.status.code(), Some(139));
    agent.wait_for(&crashes("show-last-5e"), 1.0);
    let said = agent.stop();
    assert!(said.status.success());
    let shown = Command::new(FAULTLINE).args(["show", "last"]).arg(&log).output().unwrap();
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), String::from_utf8(seen.stdout).unwrap());
    assert_eq!(shown.status.code(), Some(0));
}
