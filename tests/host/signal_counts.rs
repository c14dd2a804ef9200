//! `faultline signal` counts what finds no room, and what the agent or a filter lets through.

use std::fs;
use std::process::Command;

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
