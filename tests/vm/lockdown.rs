//! Under lockdown=confidentiality: from 6.12 on the same records, on older kernels one clear line.

use std::fs;
use std::process::{Command, Output};

use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, check_at_once, programs, records};
use crate::snapshot;
use macro_rules_attribute::apply;
use serde_json::Value;

/// The kernels of the matrix that have typed loads (v6.2): faultline works there.
const WORKS: &[&str] = &["6.12", "6.18", "7.2"];

fn works() -> bool {
    let kernel = std::env::var("FAULTLINE_KERNEL").expect("runs in a guest only: ci/vm");
    WORKS.contains(&kernel.as_str())
}

/// faultline without securityfs, so that the kernel does not report its lockdown.
fn untold(arguments: &str) -> Output {
    let script = format!("umount /sys/kernel/security; exec {FAULTLINE} {arguments}");
    Command::new("unshare").args(["-m", "sh", "-c", &script]).watch()
}

#[apply(watch_test!)]
fn it_is_in_force() {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").unwrap();
    assert!(modes.contains("[confidentiality]"), "{modes}");
}

#[apply(watch_test!)]
fn typed_loads_see_everything() {
    if works() {
        for (name, record) in check_at_once(snapshot::FEW, &[]) {
            snapshot::compare(&name, &record);
        }
    }
    let output = untold("crash --format json -- sh -c 'kill -SEGV $$'");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if works() {
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&record["comm"], &record["sender"]["comm"]), (&"sh".into(), &"sh".into()), "{text}");
    } else {
        assert_eq!(output.status.code(), Some(2));
        assert!(text.contains("lockdown=confidentiality is in force") && text.lines().count() == 1, "{text}");
    }
}

#[apply(watch_test!)]
fn signals_are_seen() {
    let arguments = ["signal", "--processes", "--format", "json", "--", "sh", "-c", "kill $$"];
    let output = Command::new(FAULTLINE).args(arguments).watch();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !works() {
        assert_eq!(output.status.code(), Some(2));
        assert!(text.contains("lockdown=confidentiality is in force") && text.lines().count() == 1, "{text}");
        return;
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen = records(&lines);
    let of = |kind: &str| seen.iter().find(|record| record["type"] == kind).unwrap_or_else(|| panic!("{lines}{text}"));
    let signal = of("signal");
    assert_eq!(signal["sender"]["comm"], "sh");
    assert_eq!((&signal["target"]["pid"], &of("exit")["signal"]), (&signal["sender"]["pid"], &"SIGTERM".into()));
    assert!(of("exec")["exe"].as_str().is_some_and(|exe| exe.starts_with('/')), "{lines}");
}

#[apply(watch_test!)]
fn page_faults_are_counted() {
    let arguments = ["pagefault", "--vma", "--stacks", "--format", "json", "--"];
    let program = programs().join("faults");
    let output = Command::new(FAULTLINE).args(arguments).arg(program).arg("two_functions").watch();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !works() {
        assert_eq!(output.status.code(), Some(2));
        assert!(text.contains("lockdown=confidentiality is in force") && text.lines().count() == 1, "{text}");
        return;
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let of = |function: &str| -> u64 {
        let groups = last["groups"].as_array().unwrap().iter().filter(|group| {
            let caller = group["stack_trace"][1]["symbol"].as_str().unwrap_or_default();
            group["vma"] == "anonymous" && caller.split('+').next() == Some(function)
        });
        groups.map(|group| group["count"].as_u64().unwrap()).sum()
    };
    assert_eq!((of("hungry"), of("modest")), (300, 100), "{last:#}{text}");
}

#[apply(watch_test!)]
fn kprobes_are_refused() {
    let output = Command::new(FAULTLINE).args(["crash", "--attach", "kprobe", "-d", "0.1"]).watch();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
    assert!(text.contains("lockdown=confidentiality is in force") && text.contains("leave --attach out"), "{text}");
}

#[apply(watch_test!)]
fn doctor_says_so() {
    let output = Command::new(FAULTLINE).args(["doctor", "--format", "json"]).watch();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let yes_or_no = if works() { "yes" } else { "no" };
    assert_eq!(report["crash"], yes_or_no, "{report:#}");
    let check = |name: &str| report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    assert_eq!(check("lockdown_allows")["status"], "no");
    assert_eq!(check("typed_loads")["status"], yes_or_no);
    assert_eq!(check("kprobe")["status"], "no");
}

/// Kprobes are refused, fentry is not: its programs read by typed loads.
#[apply(watch_test!)]
fn kernel_calls_are_recorded() {
    let command = [programs().join("call-causes").to_str().unwrap(), "own"].map(str::to_owned);
    let run = |arguments: &[&str]| {
        let output = Command::new(FAULTLINE).args(arguments).args(["--format", "json", "--"]).args(&command).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, lines, text) = run(&["call", "munmap"]);
    if !works() {
        assert_eq!(status, Some(2));
        assert!(text.contains("lockdown=confidentiality is in force") && text.lines().count() == 1, "{text}");
        return;
    }
    let seen = records(&lines);
    let crash = seen.iter().find(|record| record["type"] == "crash").unwrap_or_else(|| panic!("{lines}{text}"));
    let calls = crash["calls"].as_array().unwrap();
    let causes: Vec<&Value> = calls.iter().filter(|call| call["is_cause"] == true).collect();
    assert_eq!(causes.len(), 1, "{calls:#?}");
    assert_eq!((&causes[0]["function"], &causes[0]["attach"]), (&"munmap".into(), &"fentry".into()));
    let (_, lines, text) = run(&["call", "munmap", "--attach", "kprobe"]);
    assert!(!lines.contains("\"state\":\"attached\"") && text.contains("not let us"), "{lines}{text}");
}
