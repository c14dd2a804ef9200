//! What is said of programs that die in ways that look alike.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Scratch, run};

/// A way to die, and what is said of it: the kind, the confidence, a part of the sentence.
pub(crate) type Said<'a> = (&'a str, &'a str, &'a str, &'a str);

/// Runs the program in each way, and compares. The sentence of none is said of another: each is compared with all parts.
pub(crate) fn compare(program: &Path, table: &[Said<'_>]) {
    let scratch = Scratch::new();
    let lines = table.iter().map(|(case, ..)| format!("{} {case}", program.display()));
    let script = scratch.script("all", &(lines.collect::<Vec<String>>().join("\n") + "\nexit 0"));
    let all = run(&script, &["-t", "-r"]);
    let crashes: Vec<&Value> = all.records.iter().filter(|record| record["type"] == "crash").collect();
    assert_eq!(crashes.len(), table.len(), "{:#?}\n{}", all.records, all.stderr);
    for (&(case, kind, confidence, part), crash) in table.iter().zip(crashes) {
        let found = &crash["diagnosis"];
        let text = found["text"].as_str().unwrap_or_default();
        assert!(text.contains(part), "{case}: {part}: {crash:#}\nwithout names: {:#?}", without_names(&all.records));
        assert_eq!((&found["kind"], &found["confidence"]), (&kind.into(), &confidence.into()), "{case}: {crash:#}");
        for (other, _, _, others) in table.iter().filter(|(_, _, _, others)| !part.contains(others)) {
            assert!(!text.contains(others), "{case} is said to be {other}: {text}");
        }
    }
}

/// The files that have no names in any of the records: the first one has the reason why the later ones have none.
fn without_names(records: &[Value]) -> Vec<&Value> {
    records.iter().filter_map(|record| record["symbols_failed"].as_array()).flatten().collect()
}

/// Runs the program in each way, and nothing may be said of any.
pub(crate) fn compare_silent(program: &Path, ways: &[&str]) {
    let scratch = Scratch::new();
    let lines = ways.iter().map(|way| format!("{} {way}", program.display()));
    let script = scratch.script("all", &(lines.collect::<Vec<String>>().join("\n") + "\nexit 0"));
    let all = run(&script, &["-t", "-r"]);
    let said: Vec<&Value> =
        all.records.iter().filter(|record| record["type"] == "crash").map(|crash| &crash["diagnosis"]).collect();
    assert_eq!(said, vec![&Value::Null; ways.len()], "{ways:?}\n{}", all.stderr);
}
