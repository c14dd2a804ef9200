//! The ways to hook the kernel: each gives the same records, and the right one is chosen if another is missing.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::crash::plain;
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{Expected, FAULTLINE, Scratch, Watching, arch, check_at_once, check_with, copy_program, programs};
use crate::refused::refuse;
use crate::snapshot::{FEW, compare};

/// What each kernel of the matrix must have. A newer kernel that lacks what an older one has is a failure of ours, or a loss that
/// must be known. `yes`, `no`, or `-` if it doesn't matter.
const TABLE: &[(&str, &[(&str, &str)])] = &[
    (
        "5.10",
        &[
            ("raw_tp", "yes"),
            ("tp_btf", "yes"),
            ("kprobe", "yes"),
            ("fentry", "yes"),
            ("bpf_task_pt_regs", "no"),
            ("typed_loads", "no"),
        ],
    ),
    (
        "6.1",
        &[
            ("raw_tp", "yes"),
            ("tp_btf", "yes"),
            ("kprobe", "yes"),
            ("fentry", "yes"),
            ("bpf_task_pt_regs", "yes"),
            ("typed_loads", "no"),
        ],
    ),
    (
        "6.12",
        &[
            ("raw_tp", "yes"),
            ("tp_btf", "yes"),
            ("kprobe", "yes"),
            ("fentry", "yes"),
            ("bpf_task_pt_regs", "yes"),
            ("typed_loads", "yes"),
        ],
    ),
    (
        "6.18",
        &[
            ("raw_tp", "yes"),
            ("tp_btf", "yes"),
            ("kprobe", "yes"),
            ("fentry", "yes"),
            ("bpf_task_pt_regs", "yes"),
            ("typed_loads", "yes"),
        ],
    ),
    (
        "7.2",
        &[
            ("raw_tp", "yes"),
            ("tp_btf", "yes"),
            ("kprobe", "yes"),
            ("fentry", "yes"),
            ("bpf_task_pt_regs", "yes"),
            ("typed_loads", "yes"),
        ],
    ),
];

/// The same of arm64.
const ARM64_TABLE: &[(&str, &[(&str, &str)])] = &[
    (
        "arm64/6.1",
        &[
            ("raw_tp", "yes"),
            ("tp_btf", "yes"),
            ("kprobe", "yes"),
            ("fentry", "no"),
            ("bpf_task_pt_regs", "yes"),
            ("typed_loads", "no"),
        ],
    ),
    (
        "arm64/6.12",
        &[
            ("raw_tp", "yes"),
            ("tp_btf", "yes"),
            ("kprobe", "yes"),
            ("fentry", "yes"),
            ("bpf_task_pt_regs", "yes"),
            ("typed_loads", "yes"),
        ],
    ),
    (
        "arm64/7.2",
        &[
            ("raw_tp", "yes"),
            ("tp_btf", "yes"),
            ("kprobe", "yes"),
            ("fentry", "yes"),
            ("bpf_task_pt_regs", "yes"),
            ("typed_loads", "yes"),
        ],
    ),
];

/// The kernel that this guest is meant to be; `None` means that it is no guest, but the machine that runs the tests.
pub(crate) fn kernel() -> Option<String> {
    std::env::var("FAULTLINE_KERNEL").ok()
}

/// Every kernel of the matrix has kprobes (the test below checks it); this machine's own may lack them.
pub(crate) fn has_kprobes() -> bool {
    kernel().is_some() || Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// Is this a real-time kernel?
pub(crate) fn is_real_time() -> bool {
    fs::read_to_string("/proc/version").is_ok_and(|version| version.contains("PREEMPT_RT"))
}

fn crash(arguments: &[&str]) -> Output {
    Command::new(FAULTLINE).arg("crash").args(arguments).watch()
}

fn hooks(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output).into_owned();
    text.lines()
        .find_map(|line| line.split_once(" through "))
        .map(|(_, hooks)| hooks.trim_end().to_owned())
        .unwrap_or(text)
}

#[apply(watch_test!)]
fn each_kernel_has_what_the_table_says() {
    let output = Command::new(FAULTLINE).args(["doctor", "--format", "json"]).watch();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let status = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}"));
        check["status"].as_str().unwrap().to_owned()
    };
    let Some(kernel) = kernel() else {
        // Not in the table: what every kernel must have.
        assert_eq!(status("raw_tp"), "yes");
        return;
    };
    let name = format!("{}{kernel}", arch::KERNELS);
    let row =
        TABLE.iter().chain(ARM64_TABLE).find(|row| row.0 == name).unwrap_or_else(|| panic!("no row for {name}")).1;
    for (name, wanted) in row {
        assert_eq!(status(name), *wanted, "{name} on {kernel}: {report:#}");
    }
}

#[apply(watch_test!)]
fn a_newer_kernel_has_what_an_older_one_has() {
    for pair in TABLE.windows(2).chain(ARM64_TABLE.windows(2)) {
        let ((older, has), (newer, row)) = (pair[0], pair[1]);
        for (name, _) in has.iter().filter(|(_, status)| *status == "yes") {
            assert!(row.contains(&(*name, "yes")), "{name} is on {older} and not on {newer}");
        }
    }
}

#[apply(watch_test!)]
fn kprobes_see_the_same() {
    if !has_kprobes() {
        let output = crash(&["--attach", "kprobe", "-d", "0.1"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
        assert!(text.starts_with("faultline: failed to "), "{text}");
        return;
    }
    let output = crash(&["--attach", "kprobe", "--signal", "KILL", "-d", "0.1"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("failed to watch SIGKILL by kprobes"), "{text}");
    let flags = |name: &str| Expected::read(name).flags;
    let (refused, same): (Vec<&str>, Vec<&str>) =
        plain().into_iter().partition(|name| flags(name).contains(&"KILL".to_owned()));
    assert_eq!(refused, ["one-of-eight-threads"]);
    let (plain, flagged): (Vec<&str>, Vec<&str>) = same.into_iter().partition(|name| flags(name).is_empty());
    for (name, record) in check_at_once(&plain, &["--attach", "kprobe"]) {
        compare(&name, &record);
    }
    for name in flagged {
        compare(name, &check_with(name, &["--attach", "kprobe"]));
    }
}

#[apply(watch_test!)]
fn the_hook_in_use_is_named() {
    if kernel().as_deref() == Some("5.10") {
        // If more hooks are taken, something that was asked for needs them.
        let output = crash(&["-d", "0.1", "--signal", "SEGV"]);
        assert_eq!(hooks(&output.stderr), "raw_tp/signal_deliver");
        let output = crash(&["-d", "0.1", "--attach", "tracepoint"]);
        assert_eq!(hooks(&output.stderr), "raw_tp/signal_deliver");
    }
    let coredump = match kernel().as_deref() {
        Some("5.10" | "6.1" | "6.12") => "kprobe/do_coredump",
        _ => "kprobe/vfs_coredump",
    };
    let output = crash(&["-d", "0.1"]);
    // signal_deliver does not show what seccomp kills on 5.10, and real-time kernels may skip our program there.
    let takes_coredump = has_kprobes() && (kernel().as_deref() == Some("5.10") || is_real_time());
    let wanted = if takes_coredump {
        format!("raw_tp/signal_deliver and {coredump}")
    } else {
        "raw_tp/signal_deliver".to_owned()
    };
    assert_eq!(hooks(&output.stderr), wanted);
    if has_kprobes() {
        let output = crash(&["-d", "0.1", "--attach", "kprobe"]);
        assert_eq!(hooks(&output.stderr), format!("{coredump} and kprobe/force_sig_info_to_task"));
    }
}

/// A process that may attach to no raw tracepoint, by its types or without: its seccomp filters answer the commands that do with ENOENT.
/// Kprobes have another way.
fn without_raw_tracepoints(command: &mut Command) -> &mut Command {
    // include/uapi/linux/bpf.h
    const BPF_RAW_TRACEPOINT_OPEN: u32 = 17;
    const BPF_LINK_CREATE: u32 = 28;
    for attach in [BPF_RAW_TRACEPOINT_OPEN, BPF_LINK_CREATE] {
        refuse(command, libc::SYS_bpf, Some(attach), libc::ENOENT);
    }
    command
}

#[apply(watch_test!)]
fn kprobes_are_taken_where_the_tracepoint_is_not_to_be_had() {
    let scratch = Scratch::new();
    let program = scratch.path("fallback-2e");
    copy_program("null-write", &program);
    let mut faultline = Command::new(FAULTLINE);
    faultline.args(["crash", "-n", "fallback-2e", "--format", "json", "-r", "-t"]);
    let (mut watching, line) = Watching::try_start(without_raw_tracepoints(&mut faultline));
    if !has_kprobes() {
        assert_eq!(watching.child.wait().unwrap().code(), Some(2));
        assert!(line.contains("failed to attach to raw tracepoint `signal_deliver`"), "{line}");
        return;
    }
    assert!(hooks(line.as_bytes()).starts_with("kprobe/"), "{line}");
    Command::new(&program).status().unwrap();
    let output = watching.stop_after("crash", 1, "TERM");
    let records = String::from_utf8(output.stdout).unwrap();
    assert_eq!(records.lines().count(), 1, "{records}");
    let record: Value = serde_json::from_str(&records).unwrap();
    assert_eq!((&record["fault_address"], &record["signal"]), (&"0x18".into(), &"SIGSEGV".into()));
    let symbol = record["instruction_symbol"].as_str();
    assert!(symbol.is_some_and(|symbol| symbol.starts_with("write_field+")), "{record:#}");
}

/// The other tests use the build that `auto` takes: on a new kernel typed loads, which are not used with types from a file.
#[apply(watch_test!)]
fn both_builds_see_the_same() {
    let how = |command: &[&str], flags: &[&str]| {
        let arguments = [command, &["-v", "-d", "0.1"], flags].concat();
        let output = Command::new(FAULTLINE).args(&arguments).watch();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.contains("attached after")).unwrap_or_else(|| panic!("{text}"));
        let parts: Vec<&str> = line.split(", ").collect();
        assert!(parts[2].starts_with("resident memory ") && parts[2].ends_with(" KiB"), "{line}");
        parts[1].to_owned()
    };
    let from_file = ["--btf", "/sys/kernel/btf/vmlinux"];
    assert_eq!(how(&["crash"], &from_file), "reading kernel memory by a helper");
    let typed = !matches!(kernel().as_deref(), Some("5.10" | "6.1"));
    let wanted = if typed { "reading kernel memory by typed loads" } else { "reading kernel memory by a helper" };
    let watching = ["memory", "-n", "nobody-5b"];
    let filtered = ["signal", "--from", "nobody-5b", "--summary", "3600"];
    let all_memory = ["memory", "--watch-all"];
    for command in [&["crash"][..], &["agent"], &["signal"], &filtered, &all_memory] {
        assert_eq!(how(command, &[]), wanted, "{command:?}");
    }
    // By kprobes there are no typed loads.
    let wanted = if arch::WATCHES_BY_KPROBES { "reading kernel memory by a helper" } else { wanted };
    for command in [&["pagefault"][..], &watching] {
        assert_eq!(how(command, &[]), wanted, "{command:?}");
    }
    if typed {
        for (name, record) in check_at_once(FEW, &from_file) {
            compare(&name, &record);
        }
    }
}

#[apply(watch_test!)]
fn tracepoint_alone_means_it() {
    let mut faultline = Command::new(FAULTLINE);
    let output = without_raw_tracepoints(faultline.args(["crash", "--attach", "tracepoint", "-d", "1"])).watch();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("failed to attach to raw tracepoint `signal_deliver`"), "{text}");
}

/// The kernel's types from a file of our own; the kernel's are hidden by a mount that only the shell below sees.
#[apply(watch_test!)]
fn types_may_come_from_a_file() {
    let scratch = Scratch::new();
    let (btf, empty) = (scratch.path("btf"), scratch.path("empty"));
    fs::copy("/sys/kernel/btf/vmlinux", &btf).unwrap();
    fs::create_dir(&empty).unwrap();
    let program = programs().join("null-write");
    let hidden = |flags: &str| {
        let script = format!(
            "mount --bind {} /sys/kernel/btf && exec {FAULTLINE} crash {flags} --format json -- {}",
            empty.display(),
            program.display()
        );
        Command::new("unshare").args(["-m", "sh", "-c", &script]).watch()
    };
    let without = hidden("");
    assert_eq!(without.status.code(), Some(2));
    let text = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(text.contains("shows no types") && text.contains("--btf FILE"), "{text}");
    let with = hidden(&format!("--btf {}", btf.display()));
    assert_eq!(with.status.code(), Some(139), "{}", String::from_utf8_lossy(&with.stderr));
    let record: Value = serde_json::from_slice(&with.stdout).unwrap();
    assert_eq!(record["fault_address"], "0x18");
    let other = hidden("--btf /etc/passwd");
    let text = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(text.starts_with("faultline: `/etc/passwd` has no types of a kernel (BTF): give "), "{text}");
    assert_eq!(other.status.code(), Some(2));
    let wrong = hidden("--btf /nonexistent");
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(text, "faultline: failed to open `/nonexistent`: No such file or directory (os error 2)\n");
}
