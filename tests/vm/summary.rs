//! Counting by group: exact in a storm, with every loss by its reason and one signature for one bug.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::compile;
use crate::harness::{FAULTLINE, Scratch, Watching, copy_program, is_guest, programs, records};
use crate::runs::{Watch, watch_test};

/// The records of `faultline crash --format json FLAGS -- PROGRAM ARGUMENTS`: the last summary, and all others.
fn storm(flags: &[&str], program: &str, arguments: &[&str]) -> (Value, Vec<Value>) {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let output = Command::new(FAULTLINE)
        .args(["crash", "--summary", "3600", "--format", "json", "--output"])
        .arg(&file)
        .args(flags)
        .arg("--")
        .arg(programs().join(program))
        .args(arguments)
        .watch();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let mut records = records(fs::read(&file).unwrap());
    let last = records.pop().unwrap();
    assert_eq!((&last["type"], &last["final"]), (&"summary".into(), &true.into()));
    (last, records)
}

fn sum(object: &Value) -> u64 {
    object.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

fn counts(summary: &Value) -> Vec<u64> {
    summary["groups"].as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).collect()
}

fn samples_lost(summary: &Value, reason: &str) -> u64 {
    summary["sample_losses"][reason].as_u64().unwrap()
}

/// matched = the sum of all counts + the sum of all losses.
fn add_up(summary: &Value) {
    let counted: u64 = counts(summary).iter().sum();
    assert_eq!(summary["deliveries"]["matched"], counted + sum(&summary["losses"]), "{summary:#}");
}

/// A guest without KVM is slow: there the counts are a twentieth, unless FAULTLINE_FULL is set, as in `FAULTLINE_FULL=1 ci/vm 5.10 7.2`.
fn scale() -> u64 {
    if is_guest() && std::env::var_os("FAULTLINE_FULL").is_none() { 20 } else { 1 }
}

#[apply(watch_test!)]
fn a_hundred_thousand_of_one_and_ten_thousand_others() {
    let (same, others) = (100_000 / scale(), 10_000 / scale());
    let flags = ["--samples-per-group", "1", "--max-groups", "4000"];
    let (summary, records) = storm(&flags, "many-deaths", &[&same.to_string(), &others.to_string()]);
    add_up(&summary);
    assert_eq!(summary["deliveries"]["matched"], same + others, "{summary:#}");
    let counts = counts(&summary);
    assert_eq!(counts[0], same);
    assert!(counts[1..].iter().all(|&count| count == 1), "each of the others once");
    let groups = 1 + others.min(3999);
    assert_eq!(counts.len() as u64, groups);
    assert_eq!(summary["losses"]["group_table_full"], others + 1 - groups);
    // One sample beyond the budget is a benign race between processors; a missing one is not.
    let samples = &summary["sample_losses"];
    let not_sent = samples["sample_budget"].as_u64().unwrap() + samples["sample_ring_full"].as_u64().unwrap();
    assert_eq!(records.len() as u64 + not_sent, same + others, "each death is a record or a loss with a name");
    assert_eq!(samples["watch_table_full"], 0);
    let cpus = sum(&summary["groups"][0]["cpus"]);
    assert_eq!(cpus, same, "by processor");
    assert!(summary["groups"][0]["signature"].is_string());
}

#[apply(watch_test!)]
fn handled_faults_are_counted_and_not_recorded() {
    let count = 200_000 / scale();
    let (summary, records) = storm(&[], "many-faults", &[&count.to_string()]);
    add_up(&summary);
    assert!(records.is_empty(), "{records:#?}");
    let groups = summary["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "{summary:#}");
    assert_eq!((&groups[0]["count"], &groups[0]["disposition"]), (&count.into(), &"handled".into()));
    assert!(groups[0]["frames"][0]["symbol"].as_str().unwrap().starts_with("fault+"), "named by one sample");
    // Missed forks and exits are those of any process (v6.13 and later): none of them is one of these faults.
    let missed = samples_lost(&summary, "exits_missed") + samples_lost(&summary, "forks_missed");
    assert_eq!(sum(&summary["sample_losses"]) - missed, 0, "none was due");
    assert!(groups[0]["last_seen"].as_str() >= groups[0]["first_seen"].as_str());
}

#[apply(watch_test!)]
fn a_full_group_table_counts_together() {
    let (summary, _) = storm(&["--max-groups", "4", "--samples-per-group", "1"], "many-deaths", &["20", "10"]);
    add_up(&summary);
    assert_eq!(counts(&summary), [20, 1, 1, 1]);
    assert_eq!(summary["losses"]["group_table_full"], 7);
}

#[apply(watch_test!)]
fn a_full_stack_table_is_counted() {
    let (summary, _) = storm(&["--max-stacks", "1"], "many-deaths", &["1", "10"]);
    add_up(&summary);
    assert_eq!(summary["sample_losses"]["stack_table_full"], 10, "one stack found its place");
    assert_eq!(summary["groups"].as_array().unwrap().len(), 11);
}

#[apply(watch_test!)]
fn the_budget_of_a_group_is_kept() {
    let flags = ["--samples-per-group", "2", "--sample-interval", "3600"];
    let (summary, records) = storm(&flags, "many-deaths", &["50", "3"]);
    add_up(&summary);
    assert_eq!(records.len(), 2 + 3);
    assert_eq!(summary["sample_losses"]["sample_budget"], 48);
}

#[apply(watch_test!)]
fn the_budget_of_all_groups_is_kept() {
    let (summary, records) = storm(&["--samples-per-second", "5"], "many-deaths", &["0", "200"]);
    add_up(&summary);
    let seconds = summary["interval_seconds"].as_f64().unwrap().ceil() as usize + 1;
    assert!(records.len() <= 5 * seconds, "{} in {seconds} s", records.len());
    assert_eq!(summary["sample_losses"]["sample_budget"], 200 - records.len() as u64);
    // Without a sample a group is named by its stack, if that found room.
    let groups = summary["groups"].as_array().unwrap();
    let named = groups.iter().filter(|group| group["signature"].is_string() && group["build_id"].is_string()).count();
    let without_stack = samples_lost(&summary, "stack_table_full");
    assert!(named as u64 + without_stack >= 200 && named > records.len(), "{named} named, {without_stack} stacks lost");
}

/// A stopped reader takes nothing from the ring: a death that finds no room is counted as a lost sample, and in its group.
#[apply(watch_test!)]
fn a_full_ring_is_counted() {
    let scratch = Scratch::new();
    let program = scratch.path("ring-full-9d");
    copy_program("many-deaths", &program);
    let watching = Watching::start(&["-n", "ring-full-9d", "--summary", "3600", "--format", "json"]);
    let signal = |name: &str| {
        let pid = watching.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    };
    signal("STOP");
    assert!(Command::new(&program).args(["2000", "0"]).status().unwrap().success());
    signal("CONT");
    let output = watching.stop("TERM");
    let records = records(&output.stdout);
    let (summary, crashes) = records.split_last().unwrap();
    add_up(summary);
    assert_eq!(counts(summary), [2000], "counting does not depend on the reader");
    let lost = summary["sample_losses"]["sample_ring_full"].as_u64().unwrap();
    assert!(lost > 1000, "the ring holds about 150 of them");
    assert_eq!(crashes.len() as u64 + lost, 2000);
}

#[apply(watch_test!)]
fn summaries_come_while_it_runs_and_add_up_to_the_whole() {
    let scratch = Scratch::new();
    let program = scratch.path("interval-2c");
    copy_program("many-deaths", &program);
    let file = scratch.path("records");
    let flags = ["-n", "interval-2c", "--summary", "0.2", "--format", "json", "-o", file.to_str().unwrap()];
    let watching = Watching::start(&flags);
    for _ in 0..5 {
        assert!(Command::new(&program).args(["40", "2"]).status().unwrap().success());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // One each 0.2 s, or later on a slow machine.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(&file).unwrap().contains("\"type\":\"summary\"") {
        assert!(Instant::now() < deadline, "no summary while it runs");
        std::thread::sleep(Duration::from_millis(50));
    }
    watching.stop("INT");
    let records = records(fs::read(&file).unwrap());
    let summaries: Vec<&Value> = records.iter().filter(|record| record["type"] == "summary").collect();
    assert!(summaries.len() > 1, "one while it runs, one at the end");
    for summary in &summaries {
        add_up(summary);
    }
    let all: u64 = summaries.iter().map(|summary| summary["deliveries"]["matched"].as_u64().unwrap()).sum();
    assert_eq!(all, 5 * 42);
    let last = summaries.last().unwrap();
    let totals: u64 = last["groups"].as_array().unwrap().iter().map(|group| group["total"].as_u64().unwrap()).sum();
    assert_eq!(totals, 5 * 42, "the last one has all groups");
    assert_eq!(summaries.iter().filter(|summary| summary["final"] == true).count(), 1);
}

/// One bug in another process, with another layout, at another path, in another mount namespace: one signature.
#[apply(watch_test!)]
fn one_bug_has_one_signature_in_and_out_of_a_container() {
    let scratch = Scratch::new();
    let (lower, inside) = (scratch.path("image"), scratch.path("mounted"));
    fs::create_dir(&lower).unwrap();
    fs::create_dir(&inside).unwrap();
    copy_program("null-write", &lower.join("null-write"));
    let script = format!(
        "mount --bind {} {} && for n in 1 2 3 4 5; do {}/null-write; done; exit 0",
        lower.display(),
        inside.display(),
        inside.display()
    );
    let outside = programs().join("null-write");
    let randomly = scratch.path("randomly");
    compile("randomly.c", &randomly, &[]);
    let all = format!("for n in 1 2 3 4 5; do {}; done; unshare -m -p -f sh -c '{script}'", outside.display());
    let output = Command::new(FAULTLINE)
        .args(["crash", "--summary", "3600", "-n", "null-write", "--format", "json", "--"])
        .arg(randomly)
        .args(["sh", "-c", &all])
        .stderr(Stdio::null())
        .watch();
    let records = records(&output.stdout);
    let (summary, crashes) = records.split_last().unwrap();
    assert_eq!(crashes.len(), 10, "{records:#?}");
    let layouts: BTreeSet<&str> = crashes.iter().map(|crash| crash["instruction_pointer"].as_str().unwrap()).collect();
    assert!(layouts.len() > 1, "{layouts:?}");
    let signature = &crashes[0]["signature"];
    assert!(crashes.iter().all(|crash| crash["signature"] == *signature));
    for group in summary["groups"].as_array().unwrap() {
        assert_eq!(group["signature"], *signature, "two files, two groups of the kernel's, one name");
    }
}
