//! `faultline pagefault`: what finds no place, intervals, and the flame graph.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::faults::{Run, assert_adds_up, kind, run, total};
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, programs, records};

#[apply(watch_test!)]
fn what_finds_no_place_is_counted() {
    let all = run(&["--by", "address"], "write_first");
    let few = run(&["--by", "address", "--max-groups", "3", "--strict"], "write_first");
    let lost = few.last()["losses"]["group_table_full"].as_u64().unwrap();
    assert!(few.groups().len() == 3 && lost > 50, "{:#}", few.last());
    assert_eq!(few.status.code(), Some(1));
    assert!(few.stderr.contains("page faults matched"), "{}", few.stderr);
    // Loading a program causes a few faults more or less.
    let matched = |run: &Run| run.last()["faults"]["matched"].as_u64().unwrap();
    assert!(matched(&few).abs_diff(matched(&all)) < 20, "{} {}", matched(&few), matched(&all));
}

#[apply(watch_test!)]
fn intervals_add_up_to_the_whole() {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let faults = programs().join("faults");
    // Each process has an interval of its own, however long that takes.
    let script = format!(
        "for i in 1 2 3 4 5 6; do before=$(wc -l <{file}); {} write_first; \
         until [ $(wc -l <{file}) -gt $before ]; do sleep 0.02; done; done",
        faults.display(),
        file = file.display()
    );
    let status = Command::new(FAULTLINE)
        .args(["pagefault", "--format", "json", "--interval", "0.1", "--by", "vma", "--output"])
        .arg(&file)
        .args(["--", "sh", "-c", &script])
        .watch()
        .status;
    assert!(status.success());
    let records = records(fs::read(&file).unwrap());
    assert!(records.len() > 6, "one for each process, and the last: {}", records.len());
    let sum = |records: &[Value], field: &str| -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for group in records.iter().flat_map(|record| record["groups"].as_array().unwrap()) {
            let key = format!("{} {:?}", group["pid"], kind(group));
            *sums.entry(key).or_default() += group[field].as_u64().unwrap();
        }
        sums
    };
    records.iter().for_each(assert_adds_up);
    let last = records.last().unwrap();
    let counts = sum(&records, "count");
    assert_eq!(
        counts.into_iter().filter(|(_, count)| *count != 0).collect::<BTreeMap<_, _>>(),
        sum(std::slice::from_ref(last), "total")
    );
    // Six processes that ended before their names were read, and each has its name.
    let fresh = last["groups"].as_array().unwrap().iter().filter(|group| {
        group["comm"] == "faults" && group["vma"] == "anonymous" && group["total"] == 13 && group["access"] == "write"
    });
    assert_eq!(fresh.count(), 6, "{last:#}");
}

#[apply(watch_test!)]
fn a_flame_graph_shows_who_faults() {
    let scratch = Scratch::new();
    let file = scratch.path("faults.svg");
    let run = run(&["--flamegraph", file.to_str().unwrap(), "--strict"], "two_functions");
    assert!(run.status.success(), "{}", run.stderr);
    let stacks = |function: &str| -> u64 {
        let groups = run.groups().iter().filter(|group| {
            let frames = group["stack_trace"].as_array().unwrap();
            frames
                .iter()
                .any(|frame| frame["symbol"].as_str().is_some_and(|symbol| symbol.split('+').next() == Some(function)))
        });
        groups.map(total).sum()
    };
    assert_eq!([stacks("hungry"), stacks("modest")], [300, 100], "{:#}", run.last());
    // The picture's own numbers: `<title>hungry (300 page faults, 61.98%)</title>`.
    let svg = fs::read_to_string(&file).unwrap();
    let share = |function: &str| -> (u64, f64) {
        let (_, rest) = svg.split_once(&format!("<title>{function} (")).unwrap_or_else(|| panic!("no {function}"));
        let (count, rest) = rest.split_once(" page faults, ").unwrap();
        let (percent, _) = rest.split_once('%').unwrap();
        (count.replace(',', "").parse().unwrap(), percent.parse().unwrap())
    };
    let matched = run.last()["faults"]["matched"].as_u64().unwrap();
    for (function, count) in [("all", matched), ("hungry", 300), ("modest", 100)] {
        let percent = count as f64 * 100.0 / matched as f64;
        let (shown, shown_percent) = share(function);
        assert!(shown == count && (shown_percent - percent).abs() < 0.02, "{function}: {shown}, {shown_percent} %");
    }
}
