//! `faultline call` where the kernel makes no difference: many functions at once, and what can't be attached.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use faultline::internals::call::Function;
use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, records};
use crate::recorder::{Calls, plan_by, start, syscall, ways};

#[apply(watch_test!)]
fn twenty_functions_are_attached_at_once() {
    let calls = Calls::start();
    let names = [
        "mmap",
        "munmap",
        "mprotect",
        "mremap",
        "brk",
        "madvise",
        "truncate",
        "ftruncate",
        "fallocate",
        "openat",
        "close",
        "read",
        "write",
        "rt_sigaction",
        "kill",
        "tgkill",
        "unlinkat",
        "fsync",
        "msync",
        "mlock",
    ];
    let functions: Vec<Function> = names.iter().map(|name| syscall(name, 1)).collect();
    for (attach, how) in ways() {
        let plan = plan_by(attach, calls.pid(), functions.clone());
        let begin = Instant::now();
        let recorder = start(&plan);
        let took = begin.elapsed();
        let attached = recorder.attached().to_vec();
        let begin = Instant::now();
        drop(recorder);
        println!("{how:?}: 20 functions attached in {took:?}, detached in {:?}", begin.elapsed());
        assert!(attached.iter().all(|attached| attached.how == Some(how)), "{attached:#?}");
        assert!(took.as_secs() == 0, "{how:?}: {took:?}");
    }
}

#[apply(watch_test!)]
fn what_can_not_be_attached_is_an_error_with_its_reason() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(FAULTLINE).arg("call").args(arguments).args(["--", "true"]).watch();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["vfs_raed"]).contains("failed to find `vfs_raed`: did you mean vfs_read"));
    let text = refused(&["munmap", "--trigger", "mmmap=-ENOMEM"]);
    assert!(text.contains("failed to find the function of --trigger `mmmap`: did you mean mmap"), "{text}");
    let text = refused(&["do_truncate", "--attach", "tracepoint"]);
    assert!(text.starts_with("faultline: failed to attach to do_truncate ("), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    if !Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
        assert!(refused(&["munmap", "--attach", "kprobe"]).contains("this kernel has none (CONFIG_KPROBES)"));
    }
}

/// The value of an argument of a call.
fn argument<'call>(call: &'call Value, name: &str) -> &'call Value {
    let arguments = call["arguments"].as_array().unwrap();
    let found = arguments.iter().find(|argument| argument["name"] == name);
    &found.unwrap_or_else(|| panic!("no {name}: {call:#}"))["value"]
}

#[apply(watch_test!)]
fn a_trigger_is_a_tracepoint_or_the_beginning_of_a_call_if_a_condition_holds() {
    let triggers =
        ["tracepoint:signal:signal_generate:sig=SIGUSR1", "tp_btf:signal_generate:sig=12", "kill:sig=SIGUSR1"];
    let mut command = Command::new(FAULTLINE);
    command.args(["call", "--format", "json"]);
    for trigger in triggers.iter().chain(&["tp_btf:no_such_event", "kill:sig=SIGURG", "umask:mask=77"]) {
        command.args(["--trigger", trigger]);
    }
    let script = "trap : URG USR1 USR2; kill -URG $$; kill -USR1 $$; kill -USR2 $$";
    let output = command.args(["--", "sh", "-c", script]).watch();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let records = records(&output.stdout);
    let fired: Vec<&Value> = records.iter().filter(|record| record["type"] == "call_trigger").collect();
    let words: Vec<&str> = fired.iter().map(|trigger| trigger["trigger"].as_str().unwrap()).collect();
    assert_eq!(words, [triggers[2], triggers[0], triggers[1]], "{fired:#?}\n{stderr}");
    let fates: Vec<String> =
        stderr.lines().filter(|line| line.starts_with("faultline: trigger ")).map(str::to_owned).collect();
    let expected = [
        "tracepoint:signal:signal_generate:sig=SIGUSR1: fired once",
        "tp_btf:signal_generate:sig=12: fired once",
        "kill:sig=SIGUSR1: fired once",
        "tp_btf:no_such_event: can't fire (no tracepoint of this kernel is called so)",
        "kill:sig=SIGURG: can't fire (there is --trigger kill:sig=SIGUSR1 already)",
        "umask:mask=77: it never happened",
    ];
    assert_eq!(fates, expected.map(|fate| format!("faultline: trigger {fate}")), "{stderr}");
    for (trigger, name) in fired.iter().zip(["kill", "tracepoint:signal:signal_generate", "tp_btf:signal_generate"]) {
        let call = trigger["calls"].as_array().unwrap().iter().rfind(|call| call["function"] == name).unwrap();
        let is_call = name == "kill";
        let signal = if name.starts_with("tp_btf") { "SIGUSR2" } else { "SIGUSR1" };
        assert_eq!(argument(call, "sig"), signal, "{trigger:#}");
        assert_eq!(call["state"], if is_call { "not_returned" } else { "returned" });
        assert_eq!((&call["return"], &call["duration_ns"]), (&Value::Null, &Value::Null));
        if !is_call {
            assert_eq!((&call["attach"], argument(call, "task:task_struct.pid")), (&"tp_btf".into(), &trigger["pid"]));
        }
    }
}

#[apply(watch_test!)]
fn a_trigger_that_can_not_fire_is_an_error_with_its_reason() {
    let refused = |trigger: &str| {
        let output = Command::new(FAULTLINE).args(["call", "--trigger", trigger, "--", "true"]).watch();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{trigger}");
        String::from_utf8(output.stderr).unwrap()
    };
    let near = refused("tp_btf:signal_generat");
    assert!(near.contains("`tp_btf:signal_generat`: did you mean tp_btf:signal_generate"), "{near}");
    assert!(
        refused("tracepoint:sched:signal_generate").contains("`tracepoint:sched:signal_generate`"),
        "another category"
    );
    let number = refused("tp_btf:signal_generate:sigg=1");
    assert!(number.contains("sigg=1: it has no number `sigg`, but sig, "), "{number}");
    let value = refused("tp_btf:signal_generate:sig=NEVER");
    assert!(value.contains("`NEVER` is no value of `sig`"), "{value}");
}

#[apply(watch_test!)]
fn a_trigger_has_the_calls_of_others_that_are_joined_to_it() {
    // To set it, the shell first asks for what it was, and puts that back.
    let script = "umask 3 & wait; umask 2; umask 3";
    let run = |stitch: &str| {
        let mut command = Command::new(FAULTLINE);
        command.args(["call", "--format", "json", "--trigger", "umask:mask=3", "--stitch", stitch]);
        let output = command.args(["--", "sh", "-c", script]).watch();
        let records = records(&output.stdout);
        let trigger = records.iter().rfind(|record| record["type"] == "call_trigger");
        trigger.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr))).clone()
    };
    let masks = |trigger: &Value| -> Vec<u64> {
        let calls = trigger["calls"].as_array().unwrap().iter();
        calls.map(|call| argument(call, "mask").as_u64().unwrap()).filter(|mask| (1..4).contains(mask)).collect()
    };
    let expected: [(&str, &[u64]); 3] = [("task", &[2, 2, 3]), ("time", &[3, 2, 2, 3]), ("mask", &[3, 3])];
    for (stitch, expected) in expected {
        let trigger = run(stitch);
        assert_eq!(masks(&trigger), expected, "{stitch}: {trigger:#}");
        assert_eq!(trigger["stitched_by"], stitch);
    }
    assert_eq!(run("nothing")["stitched_by"], "task");
}
