//! The table of groups under attack: nobody can take it, and no count is lost while groups leave it. FAULTLINE_STORM=N makes storms N times
//! as long, for a run by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::agent::{Agent, crash, crashes};
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, copy_program, records};
use crate::storm::add_up;

fn storms() -> u64 {
    std::env::var("FAULTLINE_STORM").map_or(1, |times| times.parse().unwrap())
}

/// An agent with room for so many groups, and samples of a second, which writes to a file: nobody reads a pipe while it runs. All programs
/// whose names contain `name` are watched.
fn agent(scratch: &Scratch, name: &str, groups: &str, samples: &str) -> Agent {
    agent_with(scratch, name, groups, samples, &[])
}

/// The same, with more flags.
fn agent_with(scratch: &Scratch, name: &str, groups: &str, samples: &str, more: &[&str]) -> Agent {
    let file = scratch.path("records");
    let budget = ["--max-groups", groups, "--samples-per-second", samples];
    let to = ["--interval", "0.5", "-o", file.to_str().unwrap()];
    Agent::start(&[&["-n", name][..], &to[..], &budget[..], more].concat())
}

/// Ends it; all that it has written.
fn ended(agent: Agent, scratch: &Scratch) -> Vec<Value> {
    agent.stop();
    records(std::fs::read(scratch.path("records")).unwrap())
}

/// A program dies that never did before: it has a series, and its record and its group when the agent ends.
pub(crate) fn first_crash(agent: &Agent, scratch: &Scratch, name: &str) {
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

/// It died once: there is a record, a summary that counts it, and a group of its own. The group of a summary that came before the names has
/// no signature.
pub(crate) fn has_group_and_record(records: &[Value], name: &str) {
    let own = has_line_and_record(records, name);
    assert!(own.iter().any(|group| group["signature"].is_string()), "no group of {name}: {own:#?}");
}

/// The same, whether or not the names came in time for the summary. Returns its groups.
pub(crate) fn has_line_and_record<'a>(records: &'a [Value], name: &str) -> Vec<&'a Value> {
    let of = |kind: &'static str| records.iter().filter(move |record| record["type"] == kind);
    let own: Vec<&Value> = of("crash").filter(|record| record["comm"] == name).collect();
    assert!(own.len() == 1 && own[0]["signature"].is_string(), "not one record of {name}: {own:#?}");
    let groups = of("summary").flat_map(|summary| summary["groups"].as_array().unwrap());
    let own: Vec<&Value> = groups.filter(|group| group["comm"] == name).collect();
    assert_eq!(own.iter().map(|group| group["count"].as_u64().unwrap()).sum::<u64>(), 1, "no summary counts {name}");
    own
}

/// Its total is in the last summary, whether its group has left or not.
pub(crate) fn has_total(records: &[Value], name: &str) {
    let last = records.iter().rfind(|record| record["final"] == true).unwrap();
    let own: Vec<&Value> = last["groups"].as_array().unwrap().iter().filter(|group| group["comm"] == name).collect();
    assert!(own.len() == 1 && own[0]["total"] == 1, "not one group of {name}: {own:#?}");
}

/// One bug that dies in ever new places took all groups, and whatever crashed afterwards was in none.
#[apply(watch_test!)]
fn one_program_that_dies_in_thousands_of_places_leaves_room() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-7c", "512", "1000");
    for storm in 0..storms() {
        crash(&scratch, "tbl-7c-many", 0, 5000);
        first_crash(&agent, &scratch, &format!("tbl-7c-n{storm}"));
        agent.wait_for(&crashes("tbl-7c-many"), 5000.0 * (storm + 1) as f64);
    }
    let records = ended(agent, &scratch);
    assert_eq!(told(&records), 5001 * storms());
    for storm in 0..storms() {
        has_group_and_record(&records, &format!("tbl-7c-n{storm}"));
        has_total(&records, &format!("tbl-7c-n{storm}"));
    }
}

/// Two users whose programs die in ever new places took all samples of each second, and what died for the first time had no record.
#[apply(watch_test!)]
fn storms_of_two_users_leave_samples_for_a_third() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-be", "4096", "32");
    let is_over = AtomicBool::new(false);
    let names: Vec<String> = (0..6).map(|number| format!("tbl-be-n{number}")).collect();
    std::thread::scope(|scope| {
        for uid in [60001, 60002] {
            let program = scratch.path(&format!("tbl-be-{uid}"));
            copy_program("many-deaths", &program);
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut storm = Command::new(&program);
                    assert!(storm.args(["0", "1000"]).uid(uid).status().unwrap().success());
                }
            });
        }
        let first = std::panic::catch_unwind(AssertUnwindSafe(|| {
            names.iter().for_each(|name| first_crash(&agent, &scratch, name));
        }));
        is_over.store(true, Ordering::Relaxed);
        first.unwrap();
    });
    let records = ended(agent, &scratch);
    told(&records);
    for name in &names {
        has_line_and_record(&records, name);
        has_total(&records, name);
    }
}

/// Thousands of executables, each of which dies once: each was a group of its own that stayed.
#[apply(watch_test!)]
fn many_executables_leave_room() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-8d", "512", "1000");
    let executables = 700 * storms();
    for number in 0..executables {
        let program = scratch.path(&format!("tbl-8d-{number}"));
        copy_program("null-write", &program);
        die(&program);
        std::fs::remove_file(&program).unwrap();
    }
    // All of them are the same user's, whose last second may have no samples left for one more; nor has an update that sees more of them than
    // there are labels.
    let delivered = "faultline_signals_delivered_total{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",disposition=\"fatal\"}";
    agent.wait_for(delivered, executables as f64);
    std::thread::sleep(Duration::from_secs(1));
    first_crash(&agent, &scratch, "tbl-8d-new");
    agent.wait_for(delivered, executables as f64 + 1.0);
    let text = agent.get("/metrics", "*/*");
    let labels = text.lines().filter(|line| line.starts_with("faultline_crashes_total{")).count();
    assert!(labels <= 101, "{text}");
    let records = ended(agent, &scratch);
    assert_eq!(told(&records), executables + 1);
    has_group_and_record(&records, "tbl-8d-new");
    has_total(&records, "tbl-8d-new");
}

/// Where the rows by executable and user were taken as well, deaths were in `group_table_full` alone, and in no series.
#[apply(watch_test!)]
fn what_finds_no_room_by_executable_has_a_series_by_signal_and_code() {
    let scratch = Scratch::new();
    // Of so small a table one may take all: there are 64 groups and 64 rests. There is a label for each of the 2000 executables: the series of
    // one that has to make way for another ends.
    let agent = agent_with(&scratch, "tbl-cf", "64", "1000", &["--max-executables", "4096"]);
    let program = scratch.path("tbl-cf-any");
    copy_program("any-deaths", &program);
    let deaths = 2000 * storms();
    let arguments = ["7".to_owned(), deaths.to_string(), "tbl-cf".into(), "60000".into(), "1000".into()];
    assert!(Command::new(&program).args(arguments).status().unwrap().success());
    let by_signal_and_code = |text: &str, metric: &str| {
        let mut sums = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with(metric)) {
            let labels: Vec<&str> = line[metric.len()..].splitn(3, ',').take(2).collect();
            *sums.entry(labels.join(",")).or_insert(0.0) += line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        }
        sums
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let text = loop {
        let text = agent.get("/metrics", "*/*");
        if by_signal_and_code(&text, "faultline_signals_delivered_total{").values().sum::<f64>() == deaths as f64 {
            break text;
        }
        assert!(Instant::now() < deadline, "not all are counted: {text}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let delivered = by_signal_and_code(&text, "faultline_signals_delivered_total{");
    assert_eq!(by_signal_and_code(&text, "faultline_crashes_total{"), delivered, "each death has a series: {text}");
    assert!(delivered.len() > 8, "signals and codes are kept apart: {delivered:?}");
    assert!(text.contains("executable=\"other\",uid=\"other\""), "the rows by executable were not full: {text}");
    assert_eq!(told(&ended(agent, &scratch)), deaths);
}

/// Groups that strike on all processors leave the table and come again: every event is in exactly one summary, and in one total at the end.
#[apply(watch_test!)]
fn groups_that_leave_while_they_strike_lose_no_count() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-9e", "512", "1000");
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
    let left = groups.iter().filter(|group| group["signature"].is_null() && group["build_id"].is_null()).count();
    assert!(left > 0, "no group has left: {last:#}");
}

/// A day of deployments: each build of a program has the same bugs, and is another file. A day leaves the agent time to have groups leave, even
/// on a busy machine: here it goes on when the agent has shown the last twenty builds.
#[apply(watch_test!)]
fn two_hundred_builds_do_not_fill_the_table() {
    let scratch = Scratch::new();
    let agent = agent(&scratch, "tbl-ad", "4096", "1000");
    let program = scratch.path("tbl-ad-app");
    for build in 1..=200 {
        copy_program("many-deaths", &program);
        assert!(Command::new(&program).args(["1", "19"]).status().unwrap().success());
        std::fs::remove_file(&program).unwrap();
        if build % 20 == 0 {
            agent.wait_for(&crashes("tbl-ad-app"), f64::from(build * 20));
        }
    }
    let records = ended(agent, &scratch);
    assert_eq!(told(&records), 4000);
    let ungrouped: u64 = records.iter().filter_map(|record| record["losses"]["group_table_full"].as_u64()).sum();
    assert_eq!(ungrouped, 0, "the table was never full");
    let users: BTreeSet<String> =
        records.iter().filter_map(|record| record["comm"].as_str().map(str::to_owned)).collect();
    assert_eq!(users.len(), 1);
}
