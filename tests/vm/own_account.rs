//! Signals that the kernel sends on its own account: they have a reason and no sender, in `crash` as in `signal`, and what looks like them and
//! was sent by a process has its sender and no reason.

use std::fs;
use std::process::{Command, Output};

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, arch, is_guest, programs, records};

/// What `faultline COMMAND` reports of a program with its arguments, and what the program says.
fn watch(command: &[&str], program: &[&str]) -> (Vec<Value>, Vec<Value>) {
    let scratch = Scratch::new();
    let path = scratch.path("records");
    let output: Output = Command::new(FAULTLINE)
        .args(command)
        .args(["-v", "--format", "json", "-o", path.to_str().unwrap(), "--"])
        .arg(programs().join(program[0]))
        .args(&program[1..])
        .watch();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = records(&output.stdout);
    assert!(!told.is_empty());
    (records(fs::read(&path).unwrap()), told)
}

/// Is the sender, and the reason, of this record what the program says? `is_delivery`: it was made where the signal is delivered.
fn compare(record: &Value, told: &Value, is_delivery: bool) {
    let about = format!("{told}: {record:#}");
    let sender = record["sender"]["pid"].as_i64().unwrap_or(0);
    // Which call has met the limit, or has sent the signal.
    let is_forgotten = is_delivery && arch::FORGETS_CALLS && told["signal"] == "SIGXFSZ";
    match told["sender"].as_i64().unwrap() {
        -1 if is_delivery => {}
        _ if is_forgotten && sender == 0 => {}
        // It sends it to itself.
        -1 => assert_eq!(sender, told["pid"].as_i64().unwrap(), "{about}"),
        expected => assert_eq!(sender, expected, "{about}"),
    }
    let (word, reason) = (told["reason"].as_str().unwrap(), &record["reason"]);
    let expected = match word.trim_start_matches('?') {
        "" => Value::Null,
        kind => {
            json!({ "kind": kind, "limit": number(&told["limit"]), "value": number(&told["value"]), "cgroup": null })
        }
    };
    if !((word.starts_with('?') && is_delivery || is_forgotten) && reason.is_null()) {
        assert_eq!(*reason, expected, "{about}");
    }
    if is_delivery && !reason.is_null() {
        let diagnosis = &record["diagnosis"];
        // Of the keys of a terminal only the delivery is seen, of a signal that dumps core.
        let confidence = if told["signal"] == "SIGQUIT" { "likely" } else { "certain" };
        assert_eq!(
            (&diagnosis["kind"], &diagnosis["confidence"]),
            (&"sent_by_kernel".into(), &confidence.into()),
            "{about}"
        );
    } else if is_delivery {
        assert_ne!(record["diagnosis"]["kind"], "sent_by_kernel", "{about}");
    }
}

fn number(told: &Value) -> Value {
    if told == -1 { Value::Null } else { told.clone() }
}

/// Both commands, on each line that the program prints.
fn check(program: &[&str]) {
    let signals =
        ["KILL", "USR1", "ABRT", "PIPE", "ALRM", "TERM", "XCPU", "XFSZ", "VTALRM", "PROF", "HUP", "INT", "QUIT", "IO"];
    let crash = signals.iter().flat_map(|signal| ["--signal", signal]);
    let crash: Vec<&str> = ["crash"].into_iter().chain(crash).collect();
    for (command, is_delivery) in [(&crash[..], true), (&["signal", "-a"], false)] {
        let (seen, told) = watch(command, program);
        // What only stops a process is no death.
        for told in told.iter().filter(|told| !(is_delivery && told["stops"] == true)) {
            let pid =
                |record: &Value| if is_delivery { record["pid"].clone() } else { record["target"]["pid"].clone() };
            let is_it = |record: &&Value| pid(record) == told["pid"] && record["signal"] == told["signal"];
            // A process that is ending may get one more.
            let record = seen.iter().find(is_it).unwrap_or_else(|| panic!("{command:?} {told}: {seen:#?}"));
            compare(record, told, is_delivery);
        }
    }
}

#[apply(watch_test!)]
fn limits_are_the_kernels() {
    check(&["own-account", "limits"]);
}

#[apply(watch_test!)]
fn events_are_the_kernels() {
    check(&["own-account", "events"]);
}

#[apply(watch_test!)]
fn descriptors_queues_terminals_and_deadlines_are_the_kernels() {
    check(&["own-devices", Scratch::new().path("").to_str().unwrap()]);
    check(&["own-terminal"]);
}

#[apply(watch_test!)]
fn the_signals_that_dump_core_have_reasons_without_the_others() {
    // Without the program at signal_generate.
    let (seen, told) = watch(&["crash"], &["own-account", "limits"]);
    for told in told.iter().filter(|told| told["signal"] != "SIGKILL") {
        let record =
            seen.iter().find(|record| record["pid"] == told["pid"]).unwrap_or_else(|| panic!("{told}: {seen:#?}"));
        compare(record, told, true);
    }
}

#[apply(watch_test!)]
fn the_end_of_a_pid_namespace_is_no_process_that_kills() {
    if is_guest() {
        check(&["own-account", "namespaces"]);
    }
}

#[apply(watch_test!)]
fn a_cgroup_kill_has_its_writer_and_its_reason() {
    if !is_guest() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let root = lines.find(|line| line[2] == "cgroup2").expect("cgroup2 must be mounted")[1].to_owned();
    let folder = format!("{root}/faultline-own-account-{}", std::process::id());
    fs::create_dir(&folder).unwrap();
    // It came with v5.14.
    if fs::exists(format!("{folder}/cgroup.kill")).unwrap() {
        check(&["own-account", "cgroup", &folder]);
    }
    fs::remove_dir(&folder).unwrap();
}

/// What `faultline crash` reports of `thread-seccomp HOW`, and the number of its thread.
fn threads(how: &str) -> (Vec<Value>, Value) {
    let scratch = Scratch::new();
    let path = scratch.path("records");
    let output: Output = Command::new(FAULTLINE)
        .args(["crash", "-r", "-t", "--format", "json", "-o", path.to_str().unwrap(), "--"])
        .arg(programs().join("thread-seccomp"))
        .arg(how)
        .env("FAULTLINE_TRUTH", "1")
        .watch();
    let said = String::from_utf8(output.stdout).unwrap();
    let tid = said.strip_prefix("tid ").unwrap().trim().parse::<u32>().unwrap();
    (records(fs::read(&path).unwrap()), tid.into())
}

#[apply(watch_test!)]
fn a_thread_that_seccomp_ends_alone_is_told_and_no_other() {
    for how in ["filter", "main"] {
        let (seen, tid) = threads(how);
        assert_eq!(seen.len(), 1, "{how}: {seen:#?}");
        let record = &seen[0];
        assert_eq!((&record["tid"], &record["thread_name"]), (&tid, &"sandboxed".into()), "{record:#}");
        assert_eq!((&record["signal"], &record["code"]), (&"SIGSYS".into(), &"SYS_SECCOMP".into()), "{record:#}");
        assert_eq!((&record["disposition"], &record["sender"]), (&"thread".into(), &Value::Null), "{record:#}");
        assert_eq!(record["seccomp"]["syscall"], libc::SYS_getppid, "{record:#}");
        let text = format!(
            "seccomp has ended the thread sandboxed alone, and its process goes on: it makes the system call getppid ({}), which its \
             seccomp filter refuses",
            libc::SYS_getppid
        );
        assert_eq!(
            (&record["diagnosis"]["text"], &record["diagnosis"]["confidence"]),
            (&text.into(), &"certain".into())
        );
        let names: Vec<&str> =
            record["stack_trace"].as_array().unwrap().iter().filter_map(|it| it["symbol"].as_str()).collect();
        assert!(names.iter().any(|name| name.starts_with("work+")), "{record:#}");
    }
    for how in ["exits", "filter-exits"] {
        let (seen, _) = threads(how);
        assert_eq!(seen.len(), 0, "{how}: {seen:#?}");
    }
    for (how, code) in [("process", "SYS_SECCOMP"), ("killed", "SI_USER")] {
        let (seen, _) = threads(how);
        assert_eq!(seen.len(), 1, "{how}: {seen:#?}");
        assert_eq!((&seen[0]["disposition"], &seen[0]["code"]), (&"fatal".into(), &code.into()), "{:#}", seen[0]);
    }
}
