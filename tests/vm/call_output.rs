//! What `faultline call` prints besides crashes: triggers, calls as they end, and arguments by the kernel's own types.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::call_cause::{argument, calls, facts};
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, Watching, arch, named, records};

/// What comes before a trigger is compared call by call, so that one whose run the kernel has skipped makes the test fail. It is run once
/// more if faultline has counted such a run (tests/vm/runs.rs), and must then find every call in its place: in the end all of it has been
/// seen in one run, as before.
#[apply(watch_test!)]
fn triggers_and_live_calls() {
    let scratch = Scratch::new();
    let program = named(&scratch, "calls", "calls-3a");
    let (watching, line) = Watching::try_start(Command::new(FAULTLINE).args([
        "call",
        "munmap",
        "mprotect",
        "munmpa",
        "--trigger",
        "munmap=-EINVAL",
        "--trigger",
        "USR2",
        "--live=1000",
        "-n",
        "calls-3a",
        "--format",
        "json",
        "-k",
        "4",
        "--kernel-stack",
        "--strict",
    ]));
    assert!(line.starts_with("faultline: watching "), "{line}");
    let mut child =
        Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"memory\nsignal 1\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = facts(&String::from_utf8(output.stdout).unwrap());
    let output = watching.stop_after("call_trigger", 2, "TERM");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "a function is missing, and --strict: {stderr}");
    assert!(stderr.contains("not found: munmpa (did you mean munmap?"), "{stderr}");
    let records = records(&output.stdout);
    let of = |kind: &str| records.iter().filter(|record| record["type"] == kind).collect::<Vec<_>>();
    let address = format!("{:#x}", said["address"].parse::<u64>().unwrap());
    let live = of("call");
    let protect =
        live.iter().find(|call| call["function"] == "mprotect" && argument(call, "start") == address.as_str());
    let protect = protect.unwrap_or_else(|| panic!("{live:#?}"));
    let expected = serde_json::json!([
        { "name": "start", "type": "unsigned long", "value": address, "after": null },
        { "name": "len", "type": "size_t", "value": 4096, "after": null },
        { "name": "prot", "type": "unsigned long", "value": "PROT_READ", "after": null },
    ]);
    assert_eq!(protect["arguments"], expected);
    assert_eq!((&protect["return"], &protect["error"], &protect["schema"]), (&0.into(), &Value::Null, &1.into()));
    let triggers = of("call_trigger");
    let names: Vec<&str> = triggers.iter().map(|trigger| trigger["trigger"].as_str().unwrap()).collect();
    assert_eq!(names, ["munmap=-EINVAL", "SIGUSR2"]);
    for trigger in &triggers {
        assert_eq!((&trigger["certain"], &trigger["comm"]), (&true.into(), &"calls-3a".into()));
        let calls = calls(trigger);
        assert_eq!(calls.len(), 4, "-k 4: {trigger:#}");
        let last = &calls[3];
        assert_eq!((&last["function"], argument(last, "addr")), (&"munmap".into(), &"0x1".into()));
        assert_eq!((&last["return"], &last["error"]), (&(-22).into(), &"EINVAL".into()));
        assert_eq!(argument(&calls[2], "addr"), address.as_str());
        for call in calls {
            if call["attach"] == "tracepoint" {
                assert_eq!(call["kernel_stack"], Value::Null, "it would be that of every system call");
                continue;
            }
            let frames = call["kernel_stack"].as_array().unwrap();
            let names: Vec<&str> = frames.iter().map(|frame| frame["symbol"].as_str().unwrap()).collect();
            // Before v5.15 the kernel's unwinder doesn't pass a return address that somebody's kretprobe has replaced: other tests have some.
            let is_cut = names.last().is_some_and(|name| name.starts_with("kretprobe_trampoline+"));
            assert!(is_cut || names.iter().any(|name| name.split('+').next() == Some(arch::ENTRY)), "{names:?}");
            assert!(!names.iter().any(|name| name.starts_with("bpf_")), "what is there because we look: {names:?}");
        }
    }
    assert_eq!(records.last().unwrap()["call_stages"]["triggers"], 2);
}

/// A function with each kind of parameter: a number, a struct, another one, an enum. Its signal is raise()'s.
#[apply(watch_test!)]
fn the_kernels_own_types_name_what_a_function_was_given() {
    let scratch = Scratch::new();
    let program = named(&scratch, "calls", "calls-8e");
    let (sends, task) = arch::SENDS;
    for attach in ["auto", "kprobe"] {
        let mut command = Command::new(FAULTLINE);
        command.args(["call", sends, "--trigger", "USR2", "-n", "calls-8e", "--format", "json", "--attach"]);
        if !Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
            let output = command.arg(attach).watch();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.starts_with(&format!("faultline: failed to attach to {sends} (")), "{text}");
            continue;
        }
        let (watching, line) = Watching::try_start(command.arg(attach));
        assert!(line.starts_with("faultline: watching "), "{line}");
        let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        child.stdin.take().unwrap().write_all(b"signal 1\n").unwrap();
        assert!(child.wait().unwrap().success());
        let output = watching.stop_after("call_trigger", 1, "TERM");
        let records = records(&output.stdout);
        let trigger = records.iter().find(|record| record["type"] == "call_trigger");
        let trigger = trigger.unwrap_or_else(|| panic!("{records:#?}\n{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(calls(trigger).len(), 1, "{trigger:#}");
        let call = &calls(trigger)[0];
        let is_kprobe = call["attach"].as_str().unwrap().starts_with("kprobe");
        assert!(attach == "auto" || is_kprobe, "{call:#}");
        let expected = serde_json::json!([
            { "name": "sig", "type": "int", "value": "SIGUSR2", "after": null },
            { "name": "info:kernel_siginfo.si_signo", "type": "int", "value": "SIGUSR2", "after": null },
            { "name": "info:kernel_siginfo.si_errno", "type": "int", "value": 0, "after": null },
            { "name": "info:kernel_siginfo.si_code", "type": "int", "value": -6, "after": null },
            { "name": format!("{task}:task_struct.pid"), "type": "pid_t", "value": pid, "after": null },
            { "name": format!("{task}:task_struct.tgid"), "type": "pid_t", "value": pid, "after": null },
            { "name": format!("{task}:task_struct.comm"), "type": "char[16]", "value": "calls-8e", "after": null },
            { "name": "type", "type": "enum pid_type", "value": "PIDTYPE_PID", "after": null },
        ]);
        assert_eq!(call["arguments"], expected, "by {attach}");
        assert_eq!((&call["return"], &call["error"], &call["state"]), (&0.into(), &Value::Null, &"returned".into()));
    }
}
