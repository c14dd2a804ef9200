//! `faultline doctor` on a real kernel, with privileges and without.

use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::FAULTLINE;
use crate::harness::runs::{Watch, watch_test};

fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check {name}: {report:#}"))["status"].as_str().unwrap()
}

#[apply(watch_test!)]
fn root_is_told_that_crash_works() {
    let output = Command::new(FAULTLINE).args(["doctor", "--format", "json", "--strict"]).watch();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["type"], "doctor");
    assert_eq!(report["crash"], "yes", "{report:#}");
    for required in ["CAP_BPF", "CAP_PERFMON", "btf", "raw_tp", "ring_buffer", "bpf_probe_read_user"] {
        assert_eq!(status(&report, required), "yes", "{required}");
    }
}

#[apply(watch_test!)]
fn anybody_is_told_what_is_missing() {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"])
        .args([FAULTLINE, "doctor", "--format", "json"])
        .watch();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["crash"], "no");
    assert_eq!(status(&report, "CAP_BPF"), "no");
    assert_eq!(status(&report, "raw_tp"), "unknown", "what can't be tried is not known");
    let cure = report["checks"][0]["cure"].as_str().unwrap();
    assert!(cure.contains("setcap"), "{cure}");
}
