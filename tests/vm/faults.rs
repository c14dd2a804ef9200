//! `faultline pagefault` on `tests/programs/faults.c`, which prints how many faults of each kind it had.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, ExitStatus};

use serde_json::Value;

use crate::harness::runs::Watch;
use crate::harness::{FAULTLINE, Scratch, hex, programs, records};

/// Mode, access, cause and kind of memory; `-` for unknown.
pub(crate) type Kind = [String; 4];

/// Faults by kind, of each range of addresses.
pub(crate) type Cells = BTreeMap<(u64, u64), BTreeMap<Kind, u64>>;

pub(crate) struct Run {
    pub status: ExitStatus,
    /// The faults that the program printed.
    pub cells: Cells,
    /// Its major faults, as the kernel counts them.
    pub major: u64,
    pub records: Vec<Value>,
    pub stderr: String,
}

impl Run {
    pub(crate) fn last(&self) -> &Value {
        let last = self.records.last().unwrap_or_else(|| panic!("no record: {}", self.stderr));
        assert_eq!((&last["type"], &last["final"]), (&"pagefault_summary".into(), &true.into()), "{last:#}");
        last
    }

    pub(crate) fn groups(&self) -> &[Value] {
        self.last()["groups"].as_array().unwrap()
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Value> {
        self.records.iter().filter(|record| record["type"] == "pagefault")
    }
}

/// Runs `tests/programs/faults KIND` (all kinds where it is empty; with an argument) under `faultline pagefault --format json FLAGS`.
pub(crate) fn run(flags: &[&str], kind: &str) -> Run {
    run_by(&mut Command::new(FAULTLINE), flags, kind)
}

/// The same by a command that runs faultline.
pub(crate) fn run_by(faultline: &mut Command, flags: &[&str], kind: &str) -> Run {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let output = faultline
        .args(["pagefault", "--format", "json", "--output"])
        .arg(&file)
        .args(flags)
        .arg("--")
        .arg(programs().join("faults"))
        .args(kind.split_whitespace())
        .watch();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let records = records(fs::read(&file).unwrap_or_else(|error| panic!("{error}: {stderr}")));
    for record in records.iter().filter(|record| record["type"] == "pagefault_summary") {
        assert_adds_up(record);
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let major = said.lines().find_map(|line| line.strip_prefix("major ")?.parse().ok());
    Run { status: output.status, cells: cells(&said), major: major.unwrap(), records, stderr }
}

pub(crate) fn cells(text: &str) -> Cells {
    let mut cells = Cells::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("cell ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let [start, end, mode, access, cause, vma, count] = words[..] else { panic!("{line}") };
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        let kind = [mode, access, cause, vma].map(str::to_owned);
        let range = cells.entry((number(start), number(end))).or_default();
        let count = count.parse().unwrap();
        if count != 0 {
            range.insert(kind, count);
        }
    }
    assert!(!cells.is_empty(), "the program says nothing");
    cells
}

pub(crate) fn assert_adds_up(record: &Value) {
    let sum = |list: &Value, field: &str| -> u64 {
        list.as_array().unwrap().iter().map(|group| group[field].as_u64().unwrap()).sum()
    };
    let lost: u64 = record["losses"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    let counted = sum(&record["groups"], "count") + record["omitted"]["count"].as_u64().unwrap();
    assert_eq!(record["faults"]["matched"], counted + lost, "{record:#}");
}

pub(crate) fn kind(record: &Value) -> Kind {
    ["mode", "access", "cause", "vma"].map(|field| record[field].as_str().unwrap_or("-").to_owned())
}

/// The faults in `records`, by the ranges that the program printed.
pub(crate) fn seen<'a>(
    cells: &Cells,
    records: impl IntoIterator<Item = &'a Value>,
    count: impl Fn(&Value) -> u64,
) -> Cells {
    let mut seen: Cells = cells.keys().map(|range| (*range, BTreeMap::new())).collect();
    for record in records {
        let address = hex(&record["address"]);
        let Some((_, kinds)) = seen.iter_mut().find(|((start, end), _)| (*start..*end).contains(&address)) else {
            continue;
        };
        *kinds.entry(kind(record)).or_default() += count(record);
    }
    seen
}

pub(crate) fn total(record: &Value) -> u64 {
    record["total"].as_u64().unwrap()
}
