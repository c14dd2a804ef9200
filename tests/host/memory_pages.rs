//! `faultline memory` and more pages at once than the ring holds.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use macro_rules_attribute::apply;

use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, counted_as, programs, records};

#[apply(watch_test!)]
fn many_pages_in_one_go_are_all_there() {
    let scratch = Scratch::new();
    let (folder, said) = (scratch.path("dump"), scratch.path("said"));
    let program = programs().join("memory-pages");
    let wanted = 4000_u64;
    let script = format!("exec {} {wanted} >{}", program.display(), said.display());
    let output = Command::new(FAULTLINE)
        .args(["memory", "-v", "--format", "json", "--output", "/dev/null", "--dump"])
        .arg(&folder)
        .args(["--", "sh", "-c", &script])
        .env("FAULTLINE_TRUTH", "1")
        .watch();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let mut numbers = BTreeSet::new();
    for page in records(fs::read(folder.join("pages.jsonl")).unwrap()) {
        if page["trigger"] == "mprotect" && page["mapping_name"].is_null() {
            let bytes = fs::read(folder.join(page["file"].as_str().unwrap())).unwrap();
            numbers.insert(u64::from_le_bytes(bytes[..8].try_into().unwrap()));
        }
    }
    let lost = (1..=wanted).filter(|number| !numbers.contains(number)).count() as u64;
    // On kernels with preemptible tracepoints (v6.13) runs may be skipped while all other tests map memory: 16 pages each.
    let missed = counted_as(&stderr, "runs_missed");
    assert!(lost <= 16 * missed, "pages are lost by name or not at all: {lost}: {stderr}");
}
