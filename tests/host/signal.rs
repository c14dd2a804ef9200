//! The text of `faultline signal`.

use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::FAULTLINE;
use crate::harness::runs::{Watch, watch_test};

#[apply(watch_test!)]
fn text_has_the_lines_that_scripts_look_for() {
    let script = "sleep 60 & kill $!; wait $!; exit 0";
    let output = Command::new(FAULTLINE).args(["signal", "--processes", "--", "sh", "-c", script]).watch();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let line =
        |word: &str| text.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word}: {text}"));
    let signal = line("] SIGNAL: SIGTERM (15) [sh/");
    assert!(signal.contains("] -> [s"), "{signal}");
    assert_eq!((&signal[..1], &signal[3..4], &signal[9..10], &signal[13..14]), ("[", ":", ".", "]"), "[22:33:49.123]");
    assert!(line("] FORK: sh (pid=").contains(", ppid="), "{text}");
    assert!(line("] EXEC: sh (pid=").contains("/"), "{text}");
    assert!(line("] EXIT: s").contains(" SIGTERM"), "{text}");
}

/// More pairs than fl_near_pairs has rows: the others are in the hash table, and each pair is in one of the two.
#[apply(watch_test!)]
fn many_pairs_are_all_there() {
    const PAIRS: usize = 200;
    let one = "echo pair-$0 >/proc/$$/comm; kill -USR1 $$";
    let script =
        format!("for i in $(seq {PAIRS}); do for again in 1 2 3; do sh -c '{one}' $i; done; done 2>/dev/null; exit 0");
    let output = Command::new(FAULTLINE)
        .args(["signal", "-s", "USR1", "--summary", "3600", "--format", "json", "--", "sh", "-c", &script])
        .watch();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let rows = summary["pairs"].as_array().unwrap();
    assert_eq!(rows.len(), PAIRS, "{summary:#}");
    for row in rows {
        assert_eq!(row["count"], 3, "{row:#}");
        assert_eq!((&row["sender"], row["sender"].as_str().unwrap().starts_with("pair-")), (&row["target"], true));
    }
    assert_eq!(summary["deliveries"]["matched"], PAIRS * 3);
}
