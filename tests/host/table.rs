//! The table of groups under attack: nobody can take it, and no count is lost while groups leave it. FAULTLINE_STORM=N makes storms N times
//! as long, for a run by hand.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::agent::{Agent, crash, crashes};
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, copy_program, records};
use crate::storm::add_up;

fn storms() -> u64 {
    std::env::var("FAULTLINE_STORM").map_or(1, |times| times.parse().unwrap())
}

/// An agent with room for so many groups, which writes to a file: nobody reads a pipe while it runs. All programs whose names contain
/// `name` are watched.
fn agent(scratch: &Scratch, name: &str, groups: &str) -> Agent {
    let file = scratch.path("records");
    let budget = ["--max-groups", groups, "--samples-per-second", "1000"];
    let to = ["--interval", "0.5", "-o", file.to_str().unwrap()];
    Agent::start(&[&["-n", name][..], &to[..], &budget[..]].concat())
}

/// Ends it; all that it has written.
fn ended(agent: Agent, scratch: &Scratch) -> Vec<Value> {
    agent.stop();
    records(std::fs::read(scratch.path("records")).unwrap())
}

/// A program dies that never did before: it has a series, and its record and its group when the agent ends.
fn first_crash(agent: &Agent, scratch: &Scratch, name: &str) {
    let program = scratch.path(name);
    copy_program("null-write", &program);
    die(&program);
    agent.wait_for(&crashes(name), 1.0);
}

fn die(program: &Path) {
    assert!(!Command::new(program).output().unwrap().status.success());
}

/// All summaries of a run, each of which must add up, and what they count.
fn told(records: &[Value]) -> u64 {
    let summaries = records.iter().filter(|record| record["type"] == "summary");
    let matched = |summary: &Value| {
        add_up(summary);
        summary["deliveries"]["matched"].as_u64().unwrap()
    };
    summaries.map(matched).sum()
}

/// In which group of which summary was it, and was there a record?
fn has_group_and_record(records: &[Value], name: &str) {
    let is_own = |record: &&Value| record["comm"] == name;
    assert_eq!(
        records.iter().filter(|record| record["type"] == "crash").filter(is_own).count(),
        1,
        "no record of {name}"
    );
    let summaries = records.iter().filter(|record| record["type"] == "summary");
    let groups: Vec<&Value> = summaries.flat_map(|summary| summary["groups"].as_array().unwrap()).collect();
    let own: Vec<&&Value> = groups.iter().filter(|group| group["comm"] == name && group["count"] == 1).collect();
    assert_eq!(own.len(), 1, "no group of {name}");
    assert!(own[0]["signature"].is_string(), "{}", own[0]);
}

/// One bug that dies in ever new places took all groups, and whatever crashed afterwards was in none.
#[apply(watch_test!)]
fn one_program_that_dies_in_thousands_of_places_leaves_room() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-7c", "512");
    for storm in 0..storms() {
        crash(&scratch, "tbl-7c-many", 0, 5000);
        first_crash(&agent, &scratch, &format!("tbl-7c-n{storm}"));
        agent.wait_for(&crashes("tbl-7c-many"), 5000.0 * (storm + 1) as f64);
    }
    let records = ended(agent, &scratch);
    assert_eq!(told(&records), 5001 * storms());
    for storm in 0..storms() {
        has_group_and_record(&records, &format!("tbl-7c-n{storm}"));
    }
}

/// Thousands of executables, each of which dies once: each was a group of its own that stayed.
#[apply(watch_test!)]
fn many_executables_leave_room() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-8d", "512");
    let executables = 700 * storms();
    for number in 0..executables {
        let program = scratch.path(&format!("tbl-8d-{number}"));
        copy_program("null-write", &program);
        die(&program);
        std::fs::remove_file(&program).unwrap();
    }
    first_crash(&agent, &scratch, "tbl-8d-new");
    let text = agent.get("/metrics", "*/*");
    let delivered = "faultline_signals_delivered_total{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",disposition=\"fatal\"}";
    agent.wait_for(delivered, executables as f64 + 1.0);
    let labels = text.lines().filter(|line| line.starts_with("faultline_crashes_total{")).count();
    assert!(labels <= 101, "{text}");
    let records = ended(agent, &scratch);
    assert_eq!(told(&records), executables + 1);
    has_group_and_record(&records, "tbl-8d-new");
}

/// Groups that strike on all processors leave the table and come again: every event is in exactly one summary, and in one total at the end.
#[apply(watch_test!)]
fn groups_that_leave_while_they_strike_lose_no_count() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-9e", "512");
    let names: Vec<String> = (0..6).map(|number| format!("tbl-9e-{number}")).collect();
    let rounds = 30 * storms();
    // Six programs with 60 places each: more than one user may have of 512 at rest.
    std::thread::scope(|scope| {
        for name in &names {
            let scratch = &scratch;
            scope.spawn(move || (0..rounds).for_each(|_| crash(scratch, name, 1, 60)));
        }
    });
    for name in &names {
        agent.wait_for(&crashes(name), 61.0 * rounds as f64);
    }
    let records = ended(agent, &scratch);
    let all = 6 * 61 * rounds;
    assert_eq!(told(&records), all);
    let last = records.iter().rfind(|record| record["final"] == true).unwrap();
    let groups = last["groups"].as_array().unwrap();
    let totals: u64 = groups.iter().map(|group| group["total"].as_u64().unwrap()).sum();
    let ungrouped: u64 = records.iter().filter_map(|record| record["losses"]["group_table_full"].as_u64()).sum();
    assert_eq!(totals + ungrouped, all, "each event once");
    let left = groups.iter().filter(|group| group["signature"].is_null()).count();
    assert!(left > 0, "no group has left: {last:#}");
}

/// A day of deployments: each build of a program has the same bugs, and is another file.
#[apply(watch_test!)]
fn two_hundred_builds_do_not_fill_the_table() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-ad", "4096");
    let program = scratch.path("tbl-ad-app");
    for _ in 0..200 {
        copy_program("many-deaths", &program);
        assert!(Command::new(&program).args(["1", "19"]).status().unwrap().success());
        std::fs::remove_file(&program).unwrap();
    }
    agent.wait_for(&crashes("tbl-ad-app"), 4000.0);
    let records = ended(agent, &scratch);
    assert_eq!(told(&records), 4000);
    let ungrouped: u64 = records.iter().filter_map(|record| record["losses"]["group_table_full"].as_u64()).sum();
    assert_eq!(ungrouped, 0, "the table was never full");
    let users: BTreeSet<String> =
        records.iter().filter_map(|record| record["comm"].as_str().map(str::to_owned)).collect();
    assert_eq!(users.len(), 1);
}
