//! What processors count together where there are many of them: in rows that all share, and in columns of the counts by group. Here two
//! processors do so, and each of them runs what is counted.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::agent::{Agent, crashes};
use crate::faults::{assert_adds_up, total};
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, copy_program, named, programs, records};
use crate::storm::add_up;

/// As from 32 processors on, or 65.
const SHARED_FROM: (&str, &str) = ("FAULTLINE_SHARED_FROM", "1");

/// Two processors that are there; the same one twice if there is no other.
fn processors() -> [u32; 2] {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let mut all = online.trim().split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    });
    let first = all.next().unwrap();
    [first, all.next().unwrap_or(first)]
}

/// The types of the tables of the process that counts, as its child has written them.
fn table_types(scratch: &Scratch) -> Vec<String> {
    let said = fs::read_to_string(scratch.path("tables")).unwrap();
    said.lines().filter_map(|line| line.strip_prefix("map_type:")).map(|kind| kind.trim().to_owned()).collect()
}

/// `faultline ARGUMENTS -- sh -c SCRIPT`: its records. The script has the processors in `$a` and `$b`.
fn run(scratch: &Scratch, arguments: &[&str], script: &str) -> Vec<Value> {
    let [a, b] = processors();
    let (file, tables) = (scratch.path("records"), scratch.path("tables"));
    let script = format!("a={a} b={b}; cat /proc/$PPID/fdinfo/* >{}; {script}", tables.display());
    let output = Command::new(FAULTLINE)
        .env(SHARED_FROM.0, SHARED_FROM.1)
        .args(arguments)
        .args(["--format", "json", "--output"])
        .arg(&file)
        .args(["--", "sh", "-c", &script])
        .watch();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    records(fs::read(&file).unwrap())
}

/// `BPF_MAP_TYPE_PERCPU_HASH`: a table with a value for each processor, which is not shared.
const PERCPU_HASH: &str = "5";

/// The rows that each processor has for itself are taken by other pairs before the two processors count the same ones at once.
#[apply(watch_test!)]
fn signals_that_processors_count_together_are_all_counted() {
    let scratch = Scratch::new();
    let names: Vec<String> = (0..84).map(|number| format!("shr-5d-{number}")).collect();
    for name in &names {
        named(&scratch, "kills", name);
    }
    let (few, many) = (20, 5000);
    let script = format!(
        "cd {}; for p in $a $b; do for i in $(seq 4 83); do taskset -c $p ./shr-5d-$i {few}; done; done; \
         for i in 0 1 2 3; do taskset -c $a ./shr-5d-$i {many} & taskset -c $b ./shr-5d-$i {many} & wait; done",
        scratch.path("").display()
    );
    let told = run(&scratch, &["signal", "-s", "USR1", "--summary", "3600"], &script);
    let types = table_types(&scratch);
    assert!(!types.is_empty() && !types.contains(&PERCPU_HASH.to_owned()), "the rows are not shared: {types:?}");
    let summary = told.last().unwrap();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for row in summary["pairs"].as_array().unwrap() {
        let (sender, target) = (row["sender"].as_str().unwrap(), row["target"].as_str().unwrap());
        *counts.entry(if sender == "pong" { target } else { sender }).or_default() += row["count"].as_u64().unwrap();
    }
    let expected = names.iter().zip(0..).map(|(name, at)| (name.as_str(), 2 * if at < 4 { many } else { few }));
    assert_eq!(counts, expected.collect(), "{summary:#}");
}

#[apply(watch_test!)]
fn page_faults_that_processors_count_together_are_all_counted() {
    let scratch = Scratch::new();
    let faults = programs().join("faults");
    let faults = faults.display();
    let script = format!(
        "for i in $(seq 40); do taskset -c $a {faults} write_first & taskset -c $b {faults} write_first & wait; done"
    );
    let told = run(&scratch, &["pagefault", "--by", "vma", "--interval", "3600"], &script);
    let types = table_types(&scratch);
    assert!(!types.is_empty() && !types.contains(&PERCPU_HASH.to_owned()), "the rows are not shared: {types:?}");
    told.iter().for_each(assert_adds_up);
    // Each process faults 13 times there: far more keys than a processor has rows for itself.
    let last = told.last().unwrap();
    let is_fresh = |group: &&Value| {
        group["comm"] == "faults" && group["vma"] == "anonymous" && group["access"] == "write" && total(group) == 13
    };
    assert_eq!(last["groups"].as_array().unwrap().iter().filter(is_fresh).count(), 80, "{last:#}");
}

/// The column belongs to the processor that comes first; what the other one counts has no processor.
#[apply(watch_test!)]
fn deaths_and_handled_faults_that_processors_count_together_are_all_counted() {
    let scratch = Scratch::new();
    let [a, b] = processors();
    let twice = |program: &str, first: u64, second: u64, both: u64, more: &str| {
        let path = programs().join(program);
        let on = |processor: &str, many: u64| format!("taskset -c ${processor} {} {many} {more}", path.display());
        format!("{}; {}; {} & {} & wait; ", on("a", first), on("b", second), on("a", both), on("b", both))
    };
    let script = twice("many-deaths", 300, 500, 4000, "0") + &twice("many-faults", 1000, 2000, 200_000, "");
    let told = run(&scratch, &["crash", "--summary", "3600", "--samples-per-group", "1"], &script);
    let summary = told.last().unwrap();
    add_up(summary);
    let group = |comm: &str| {
        let mut all = summary["groups"].as_array().unwrap().iter().filter(|group| group["comm"] == comm);
        let only = all.next().unwrap_or_else(|| panic!("no group of {comm}: {summary:#}"));
        assert!(all.next().is_none(), "{summary:#}");
        (only["count"].as_u64().unwrap(), only["cpus"].clone())
    };
    let of_first = |first: u64, all: u64| json!({ a.to_string(): if a == b { all } else { first } });
    assert_eq!(group("many-deaths"), (8800, of_first(4300, 8800)));
    assert_eq!(group("many-faults"), (403_000, of_first(201_000, 403_000)));
}

/// Half of its share of the table stays with a program, when its groups have been idle for a second.
fn wait_until_groups_leave(agent: &Agent) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = agent.get("/metrics", "*/*");
        let groups = text.lines().find_map(|line| line.strip_prefix("faultline_crash_groups ")?.parse::<f64>().ok());
        if groups.is_some_and(|groups| groups <= 80.0) {
            return;
        }
        assert!(Instant::now() < deadline, "no groups leave: {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Rows that groups have left are empty for the next ones.
#[apply(watch_test!)]
fn groups_that_processors_count_together_leave_no_count_behind() {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let flags = ["--max-groups", "512", "--samples-per-second", "10", "--interval", "0.5", "-n", "shr-8a"];
    let mut agent = Command::new(FAULTLINE);
    agent.env(SHARED_FROM.0, SHARED_FROM.1).args(["agent", "--metrics-listen", "0", "-o"]).arg(&file).args(flags);
    let agent = Agent::spawn(&mut agent);
    let programs = ["shr-8a-one", "shr-8a-other"].map(|name| {
        copy_program("many-deaths", &scratch.path(name));
        name
    });
    for round in 1..=3 {
        let storm = |(name, processor): (&str, u32)| {
            let mut storm = Command::new("taskset");
            storm.args(["-c", &processor.to_string()]).arg(scratch.path(name)).args(["0", "1000"]).spawn().unwrap()
        };
        let storms: Vec<_> = programs.into_iter().zip(processors()).map(storm).collect();
        storms.into_iter().for_each(|mut storm| assert!(storm.wait().unwrap().success()));
        programs.iter().for_each(|name| agent.wait_for(&crashes(name), 1000.0 * f64::from(round)));
        wait_until_groups_leave(&agent);
    }
    agent.stop();
    let told = records(fs::read(&file).unwrap());
    let summaries: Vec<&Value> = told.iter().filter(|record| record["type"] == "summary").collect();
    summaries.iter().for_each(|summary| add_up(summary));
    let matched = summaries.iter().map(|summary| summary["deliveries"]["matched"].as_u64().unwrap());
    assert_eq!(matched.sum::<u64>(), 6000);
    let groups = summaries.iter().flat_map(|summary| summary["groups"].as_array().unwrap());
    let many = groups.filter(|group| group["count"] != 0).count();
    assert!(many > 200, "{many} groups have had room, of 64 for each program: none has come into another one's row");
}
