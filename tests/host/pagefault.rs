//! `faultline pagefault`: details that find no room are counted by reason, and no fault is uncounted because of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::compile;
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, Watching, programs, records};

/// Compiles `touches` under a name that no other process has.
fn touches(scratch: &Scratch, name: &str) -> PathBuf {
    let program = scratch.path(name);
    compile("touches.c", &program, &[]);
    program
}

/// Runs the program while `faultline pagefault FLAGS` reads nothing; its records.
fn unread(program: &Path, arguments: &[&str], flags: &[&str]) -> Vec<Value> {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let name = program.file_name().unwrap().to_str().unwrap();
    let mut command = Command::new(FAULTLINE);
    command.args(["pagefault", "--format", "json", "--interval", "3600", "-n", name]).args(flags);
    // A file takes all; a pipe's reader is waited for only so long when the run ends.
    command.arg("--output").arg(&file);
    let (watching, line) = Watching::try_start(&mut command);
    assert!(line.starts_with("faultline: watching "), "{line}");
    let signal = |name: &str| {
        let pid = watching.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    };
    signal("STOP");
    assert!(Command::new(program).args(arguments).status().unwrap().success());
    signal("CONT");
    watching.stop("TERM");
    records(fs::read(&file).unwrap())
}

/// The last summary; every fault is in one of its groups, or is a loss with a reason.
fn last(records: &[Value]) -> &Value {
    let last = records.last().unwrap();
    let groups: u64 = last["groups"].as_array().unwrap().iter().map(|group| group["total"].as_u64().unwrap()).sum();
    let lost = last["losses"]["group_table_full"].as_u64().unwrap();
    assert_eq!(last["faults"]["matched"].as_u64(), Some(groups + lost), "{last:#}");
    last
}

fn lost(summary: &Value, reason: &str) -> u64 {
    summary["sample_losses"][reason].as_u64().unwrap_or_else(|| panic!("no {reason}: {summary:#}"))
}

#[apply(watch_test!)]
fn a_ring_full_of_faults_is_counted() {
    const FAULTS: u64 = 100_000;
    let scratch = Scratch::new();
    let records = unread(&touches(&scratch, "touches-some-4f"), &["pages", &FAULTS.to_string()], &["--events"]);
    let last = last(&records);
    let events = records.iter().filter(|record| record["type"] == "pagefault").count() as u64;
    let full = lost(last, "event_ring_full");
    assert!(full > FAULTS / 2, "the ring holds some 40 000: {last:#}");
    assert_eq!(Some(events + full), last["faults"]["matched"].as_u64(), "{last:#}");
}

#[apply(watch_test!)]
fn a_ring_full_of_mappings_is_counted() {
    const MAPPINGS: u64 = 8000;
    let scratch = Scratch::new();
    let program = touches(&scratch, "touches-maps-4f");
    let records = unread(&program, &["mappings", &MAPPINGS.to_string()], &["--by", "vma", "--max-groups", "20000"]);
    let last = last(&records);
    assert!(lost(last, "mapping_ring_full") > MAPPINGS / 4, "{last:#}");
    assert!(last["faults"]["matched"].as_u64().unwrap() >= MAPPINGS);
}

/// The kernel counts the runs that it skips. But the walk of a stack also causes faults, if a page of the stack isn't there.
#[apply(watch_test!)]
fn what_the_kernel_keeps_from_us_is_told_where_it_is_not_our_own() {
    let scratch = Scratch::new();
    let program = touches(&scratch, "touches-few-4f");
    let told =
        |flags: &[&str]| last(&unread(&program, &["pages", "10"], flags))["sample_losses"].as_object().unwrap().clone();
    let losses = told(&[]);
    assert!(losses["runs_missed"].is_u64() && losses["forks_missed"].is_u64(), "{losses:?}");
    assert_eq!(told(&["--stacks"]).get("runs_missed"), None);
}

#[apply(watch_test!)]
fn a_full_stack_table_is_counted() {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let output = Command::new(FAULTLINE)
        .args(["pagefault", "--format", "json", "--stacks", "--max-stacks", "1", "--output"])
        .arg(&file)
        .arg("--")
        .arg(programs().join("faults"))
        .watch();
    assert!(output.status.success());
    let records = records(fs::read(&file).unwrap());
    assert!(lost(last(&records), "stack_table_full") > 0, "a program begins with more stacks than four");
}

#[apply(watch_test!)]
fn major_faults_without_a_group_are_counted() {
    let scratch = Scratch::new();
    let records_file = scratch.path("records");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("unplaced-{}", std::process::id()));
    let output = Command::new(FAULTLINE)
        .args(["pagefault", "--format", "json", "--by", "address", "--max-groups", "1", "--output"])
        .arg(&records_file)
        .arg("--")
        .arg(programs().join("faults"))
        .arg("from_disk")
        .arg(&file)
        .watch();
    fs::remove_file(&file).unwrap();
    assert!(output.status.success());
    let records = records(fs::read(&records_file).unwrap());
    let last = last(&records);
    let placed: u64 =
        last["groups"].as_array().unwrap().iter().map(|group| group["major_total"].as_u64().unwrap()).sum();
    let (major, unplaced) = (last["faults"]["major"].as_u64().unwrap(), lost(last, "major_unplaced"));
    assert!(unplaced > 0, "{last:#}");
    assert_eq!(major, placed + unplaced, "{last:#}");
}
