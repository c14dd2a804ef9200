//! `faultline signal` counts what finds no room, and what the agent or a filter lets through.

use std::fs;
use std::process::Command;
use std::time::Instant;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::watch_test;
use crate::harness::{FAULTLINE, Scratch, Watching, counted, named, records};
use crate::sent::{signal, text, watching};

/// Each signal has a record, or is counted as lost by reason.
#[apply(watch_test!)]
fn what_finds_no_room_is_counted() {
    let scratch = Scratch::new();
    let (program, path) = (named(&scratch, "kills", "kills-2c"), scratch.path("records"));
    let many = 100_000_u64;
    let flags = ["-s", "USR1", "--format", "json", "-o", path.to_str().unwrap(), "-v", "--strict"];
    let output = signal(&[&flags[..], &["--", program.to_str().unwrap(), &many.to_string()]].concat());
    let written = records(fs::read(&path).unwrap()).len() as u64;
    let lost: u64 =
        text(&output).split_once("sample_ring_full ").unwrap().1.split(',').next().unwrap().parse().unwrap();
    assert_eq!(written + lost, many, "{}", text(&output));
    assert_eq!(output.status.code(), Some(i32::from(lost > 0)), "--strict tells that something was lost");
    // The same with a table of pairs that is too small.
    let flags = ["-s", "USR1", "--summary", "60", "--max-pairs", "1", "--format", "json"];
    let output = signal(&[&flags[..], &["--", program.to_str().unwrap(), "100"]].concat());
    let summary = &records(&output.stdout)[0];
    let counts = summary["pairs"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum::<u64>();
    assert!(summary["losses"]["pair_table_full"].as_u64().unwrap() > 0, "{summary:#}");
    assert_eq!(counts + summary["losses"]["pair_table_full"].as_u64().unwrap(), 100, "{summary:#}");
    assert_eq!(summary["deliveries"]["matched"], 100);
}

/// A reader that is as quick as those that signal doesn't come back for each of their signals.
#[apply(watch_test!)]
fn many_records_are_written_at_once() {
    let scratch = Scratch::new();
    let (program, path) = (named(&scratch, "kills", "kills-3f"), scratch.path("records"));
    let many = 100_000_u64;
    let watching = watching(&["-s", "USR1", "-n", "kills-3f", "--format", "json", "-o", path.to_str().unwrap()]);
    let begun = Instant::now();
    assert!(Command::new(&program).arg(many.to_string()).status().unwrap().success());
    let io = fs::read_to_string(format!("/proc/{}/io", watching.child.id())).unwrap();
    let calls = io.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap().parse::<u64>().unwrap();
    // The kernel program wakes the reader for each 128 KiB of samples, of some 180 bytes, and 20 times a second; records have some 400 bytes, of
    // which 64 KiB are written at once.
    let (by_room, by_bytes) = (many * 180 / (128 << 10), many * 400 / (64 << 10));
    let by_time = u64::try_from(begun.elapsed().as_millis()).unwrap() / 50;
    let most = by_bytes + 2 * (by_room + by_time) + 50;
    assert!(calls <= most, "{calls} writes, not {most}");
    watching.stop("TERM");
}

#[apply(watch_test!)]
fn a_sender_and_a_target_may_be_named() {
    let scratch = Scratch::new();
    let program = named(&scratch, "kills", "kills-5a");
    let watching = watching(&["-s", "USR1", "-n", "kills-5a", "--from", "pong", "--to", "kills-5", "--format", "json"]);
    assert!(Command::new(&program).arg("20").status().unwrap().success());
    let output = watching.stop("TERM");
    let seen = records(&output.stdout);
    assert_eq!(seen.len(), 10, "{seen:#?}");
    assert!(seen.iter().all(|record| record["sender"]["comm"] == "pong" && record["target"]["comm"] == "kills-5a"));
    assert!(counted(&output.stderr, " filtered out in the kernel") >= 10);
}

#[apply(watch_test!)]
fn the_agent_counts_signals_when_asked() {
    let scratch = Scratch::new();
    let program = named(&scratch, "kills", "kills-9a");
    let flags = ["agent", "--watch-signals", "--interval", "0.2", "-n", "kills-9a"];
    let (agent, line) = Watching::try_start(Command::new(FAULTLINE).args(flags));
    assert!(line.starts_with("faultline: watching "), "{line}");
    // The name is the target's or the sender's, so that signals from its child are there as well.
    assert!(Command::new(&program).arg("300").status().unwrap().success());
    let seen = records(&agent.stop("TERM").stdout);
    let summaries: Vec<&Value> = seen.iter().filter(|record| record["type"] == "signal_summary").collect();
    let rows = summaries.iter().flat_map(|summary| summary["pairs"].as_array().unwrap());
    let counts = rows.filter(|row| row["signal"] == "SIGUSR1").map(|row| row["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 300, "{summaries:#?}");
    let last = summaries.last().unwrap();
    assert_eq!(last["final"], true);
    let total = |result: &str| {
        let rows = last["pairs"].as_array().unwrap().iter();
        rows.filter(|row| row["signal"] == "SIGUSR1" && row["result"] == result)
            .map(|row| row["total"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(total("delivered"), 300);
}
