//! Counting by group: budgets, intervals, and one signature for one bug.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::compile;
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, Watching, copy_program, programs, records};
use crate::storm::{add_up, samples_lost, storm};

#[apply(watch_test!)]
fn the_budget_of_a_group_is_kept() {
    let flags = ["--samples-per-group", "2", "--sample-interval", "3600"];
    let (summary, records) = storm(&flags, "many-deaths", &["50", "3"]);
    add_up(&summary);
    assert_eq!(records.len(), 2 + 3);
    assert_eq!(summary["sample_losses"]["sample_budget"], 48);
}

/// A record a minute of each of a hundred bugs was a gigabyte a day.
#[apply(watch_test!)]
fn a_bug_that_strikes_on_and_on_has_ever_fewer_records() {
    let flags = ["--samples-per-group", "1", "--sample-interval", "0.02"];
    let (summary, records) = storm(&flags, "many-deaths", &["4000", "0"]);
    add_up(&summary);
    let moment = |record: &Value| record["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let mut moments: Vec<_> = records.iter().map(moment).collect();
    moments.sort_unstable();
    assert!(moments.len() >= 3, "{moments:?}");
    for (pair, wait) in moments.windows(2).zip((0..).map(|doubled| 20 << doubled)) {
        // The clock may be set meanwhile.
        assert!(pair[1].duration_since(pair[0]).as_millis() + 1 >= wait, "{moments:?}");
    }
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
    let has_frames = |group: &&Value| group["frames"].as_array().is_some_and(|frames| !frames.is_empty());
    let named = groups.iter().filter(has_frames).filter(|group| group["build_id"].is_string()).count();
    let without_stack = samples_lost(&summary, "stack_table_full");
    assert!(named as u64 + without_stack >= 200 && named > records.len(), "{named} named, {without_stack} stacks lost");
    // The kernel's stack makes no signature: it could be another than a record's.
    let signed: Vec<&Value> = groups.iter().filter(|group| group["signature"].is_string()).collect();
    assert!(signed.len() <= records.len(), "{} signed", signed.len());
    assert!(signed.iter().all(|group| records.iter().any(|record| record["signature"] == group["signature"])));
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
