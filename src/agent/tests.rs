//! docs/fleet.md and dist/ are held against the code. tests/host/agent.rs holds them against a running agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::probe::losses;
use crate::siginfo::{code_name, is_code_name, signal_name};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The rows between two headings, by cells.
fn rows<'a>(text: &'a str, from: &str, to: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = text.split_once(from).unwrap();
    let (section, _) = section.split_once(to).unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').map(str::trim).skip(1).collect()).collect()
}

#[test]
fn the_guide_has_every_stage_and_reason() {
    let guide = read("docs/fleet.md");
    let mut documented = BTreeSet::new();
    for row in rows(&guide, "| stage | reason |", "## Prometheus") {
        for reason in row[1].split(' ') {
            documented.insert((row[0].trim_matches('`'), reason.trim_matches('`')));
        }
    }
    documented.retain(|(stage, _)| !stage.starts_with("---"));
    assert_eq!(documented, losses::dropped().collect());
}

/// The signals whose default action is to dump core, with each code: `other` is one, and none.
fn kinds() -> usize {
    let signals = crate::siginfo::CORE_SIGNALS;
    let mut kinds = 0;
    for signal in signals {
        let codes: BTreeSet<String> = (-100..=1000).map(|code| code_name(signal, code)).collect();
        let named = codes.iter().filter(|code| is_code_name(code)).count();
        assert!(named > 2, "{}", signal_name(signal));
        kinds += named + 2;
    }
    kinds
}

#[test]
fn the_guide_bounds_the_series_and_prometheus_takes_that_many() {
    let guide = read("docs/fleet.md");
    let bounds: BTreeMap<&str, usize> = rows(&guide, "| metric | series | why |", "A kind is")
        .iter()
        .filter_map(|row| Some((row[0].trim_matches('`'), row[1].parse().ok()?)))
        .collect();
    let names = 100 + 1;
    let wanted = BTreeMap::from([
        ("faultline_crashes_total", crate::output::CRASH_SERIES_MAX),
        ("faultline_signals_delivered_total", kinds() * crate::record::crash::Disposition::ALL.len()),
        ("faultline_signals_sent_total", crate::output::SENT_SERIES_MAX + 2 * 64 * 5),
        ("faultline_page_faults_total", names * 2 * 3 * 2),
        ("faultline_major_page_faults_total", names),
        ("faultline_executable_memory_calls_total", names * 3 * 2),
        ("faultline_events_dropped_total", losses::dropped().count()),
        ("all others", 13),
    ]);
    assert_eq!(bounds, wanted);
    let sum: usize = bounds.values().sum();
    let written = format!("{},{:03} with all switches", sum / 1000, sum % 1000);
    assert!(guide.contains(&written), "{written}");
    for file in ["docs/fleet.md", "dist/prometheus/prometheus.yml"] {
        let text = read(file);
        let limits: Vec<usize> =
            text.lines().filter_map(|line| line.trim().strip_prefix("sample_limit: ")?.parse().ok()).collect();
        assert!(!limits.is_empty() && limits.iter().all(|&limit| limit >= sum), "{file}: {limits:?}");
    }
}
