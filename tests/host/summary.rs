//! The groups of a summary.

use std::process::{Command, Stdio};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, programs};

fn storm_of(program: &str) -> (Value, Vec<Value>) {
    let output = Command::new(FAULTLINE)
        .args(["crash", "--summary", "3600", "--format", "json", "--"])
        .arg(programs().join(program))
        .stderr(Stdio::null())
        .watch();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    (records.pop().unwrap(), records)
}

#[apply(watch_test!)]
fn two_bugs_that_end_in_abort_are_two() {
    let signature = |program: &str| {
        let (summary, _) = storm_of(program);
        summary["groups"][0]["signature"].as_str().unwrap().to_owned()
    };
    assert_ne!(signature("abort"), signature("smashed-stack"));
    assert_ne!(signature("abort"), signature("failed-assert"));
}

#[apply(watch_test!)]
fn text_has_a_table() {
    let output = Command::new(FAULTLINE)
        .args(["crash", "--summary", "3600", "--"])
        .arg(programs().join("null-write"))
        .stderr(Stdio::null())
        .watch();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1 signal in 1 group"), "{text}");
    let row = text.lines().find(|line| line.contains("write_field+") && line.contains("SIGSEGV")).unwrap();
    assert!(row.contains("null-write") && row.contains("SEGV_MAPERR") && row.contains("fatal"), "{row}");
    assert!(text.contains("group_table_full 0"), "zeros are shown: {text}");
}

/// The place where a process was when another one killed it is no bug.
#[apply(watch_test!)]
fn a_sent_signal_has_no_place() {
    // It is killed when it is another program, at a place that is not known.
    let script = "for n in 1 2 3 4; do sleep 60 & until [ $(cat /proc/$!/comm) = sleep ]; do :; done; \
                  kill -SEGV $!; wait $!; done; exit 0";
    let output = Command::new(FAULTLINE)
        .args(["crash", "--summary", "3600", "--format", "json", "--", "sh", "-c", script])
        .stderr(Stdio::null())
        .watch();
    let text = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["deliveries"]["matched"], 4, "{text}");
    let signatures: std::collections::BTreeSet<&str> =
        last["groups"].as_array().unwrap().iter().map(|group| group["signature"].as_str().unwrap()).collect();
    assert_eq!(signatures.len(), 1, "{text}");
}
