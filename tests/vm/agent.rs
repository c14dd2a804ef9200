//! `faultline agent`: it counts everything and writes a few. What doesn't depend on the kernel is in `tests/host`.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Scratch, Watching, copy_program};

#[test]
fn it_counts_all_and_writes_a_few() {
    let scratch = Scratch::new();
    let program = scratch.path("agent-few-4a");
    copy_program("many-deaths", &program);
    let (agent, line) = Watching::try_start(Command::new(crate::harness::FAULTLINE).args([
        "agent",
        "-n",
        "agent-few-4a",
        "--interval",
        "0.3",
    ]));
    assert!(line.starts_with("faultline: watching "), "{line}");
    assert!(Command::new(&program).args(["500", "2"]).status().unwrap().success());
    let output = agent.stop("TERM");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summaries = records.iter().filter(|record| record["type"] == "summary");
    assert_eq!(summaries.map(|summary| summary["deliveries"]["matched"].as_u64().unwrap()).sum::<u64>(), 502);
    let crashes: Vec<&Value> = records.iter().filter(|record| record["type"] == "crash").collect();
    assert_eq!(crashes.len(), 3 + 2, "the first three of each group");
    assert!(crashes[0]["registers"]["rip"].is_string() && crashes[0]["stack_trace"][0]["build_id"].is_string());
    let last = records.last().unwrap();
    assert_eq!((&last["type"], &last["final"]), (&"summary".into(), &true.into()));
}
