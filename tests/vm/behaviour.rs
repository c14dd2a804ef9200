//! What `faultline crash` does besides its records, if it depends on the kernel: filters, flags, refusals. `tests/host` has
//! the rest.

use std::fs;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::capabilities::with_capabilities;
use crate::compile::compile;
use crate::harness::runs::{Watch, next_line, watch_test};
use crate::harness::{FAULTLINE, Scratch, Watching, arch, counted, die, named, programs, records, run};

fn program(name: &str) -> String {
    programs().join(name).to_str().unwrap().to_owned()
}

#[apply(watch_test!)]
fn a_record_comes_at_once() {
    let scratch = Scratch::new();
    let program = named(&scratch, "null-write", "at-once-7f");
    let mut watching = Watching::start(&["-n", "at-once-7f", "--format", "json"]);
    let mut stdout = BufReader::new(watching.child.stdout.take().unwrap());
    // The first crash after a pause wakes the reader; the next one, within 50 ms, doesn't. Both must arrive.
    for _ in 0..5 {
        let started = Instant::now();
        die(&program);
        let line = next_line(&mut stdout);
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["comm"], "at-once-7f");
        let took = started.elapsed();
        // In a guest, and on a machine that is busy, the crash itself takes long.
        let limit = Duration::from_secs(20);
        assert!(took < limit, "a record that waits for the next event never comes: {took:?}");
    }
    let output = watching.stop("TERM");
    assert!(output.status.success());
    assert_eq!(counted(&output.stderr, " fatal"), 5);
}

/// There is room for 24 executable mappings: those that the stack leads to are among them, wherever they are.
#[apply(watch_test!)]
fn a_stack_is_whole_in_a_process_of_many_mappings() {
    let scratch = Scratch::new();
    let program = scratch.path("many-mappings");
    compile("many-mappings.c", &program, &["-O2", "-fomit-frame-pointer"]);
    let run = run(&program, &["-t", "--max-stack-depth", "127"]);
    let [record] = &run.records[..] else { panic!("{}", run.stderr) };
    let frames = record["stack_trace"].as_array().unwrap();
    let names = frames.iter().filter_map(|frame| frame["symbol"].as_str()?.split('+').next());
    let own: Vec<&str> = names.filter(|name| ["compare", "sort_all", "main"].contains(name)).collect();
    assert_eq!(own, ["compare", "sort_all", "main"], "{record:#}");
    assert_eq!(record["stack_complete"], true, "{record:#}");
}

#[apply(watch_test!)]
fn a_cgroup_is_watched_with_those_below_it() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("cgroup2 must be mounted");
    let folder = PathBuf::from(root.split(' ').nth(1).unwrap()).join(format!("faultline-{}", std::process::id()));
    let below = folder.join("below");
    fs::create_dir_all(&below).unwrap();
    let die_in = |folder: &PathBuf| {
        let script = format!("echo $$ > {}/cgroup.procs; exec {}", folder.display(), program("null-write"));
        Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status().unwrap();
    };
    let watching = Watching::start(&["--cgroup", folder.to_str().unwrap(), "--format", "json"]);
    die_in(&folder);
    die_in(&below);
    die(&programs().join("null-write"));
    let records = records(&watching.stop_after("crash", 2, "TERM").stdout);
    fs::remove_dir(&below).unwrap();
    fs::remove_dir(&folder).unwrap();
    let name = format!("/faultline-{}", std::process::id());
    let cgroups: Vec<&str> = records.iter().map(|record| record["cgroup"].as_str().unwrap()).collect();
    assert_eq!(cgroups, [name.clone(), name + "/below"]);
}

/// Each fault of a place had a copy of its stack of 64 KiB, however often it came.
#[apply(watch_test!)]
fn the_stack_of_a_place_is_sent_once_a_second() {
    let run = run(&programs().join("handled-again"), &["--handled"]);
    let complete: Vec<bool> = run.records.iter().map(|record| record["stack_complete"].as_bool().unwrap()).collect();
    assert_eq!(complete, [true, false, false, false, false, true], "{:#?}", run.records);
    for record in &run.records {
        // What lies in the innermost pages is known in any case.
        let symbols: Vec<&str> =
            record["stack_trace"].as_array().unwrap().iter().filter_map(|frame| frame["symbol"].as_str()).collect();
        let named = |name: &str| symbols.iter().any(|symbol| symbol.starts_with(&format!("{name}+")));
        assert!(named("touch") && named("far_below"), "{record:#}");
        assert_eq!(named("main"), record["stack_complete"] == true, "{record:#}");
    }
}

#[apply(watch_test!)]
fn handled_signals_are_counted_only() {
    let run = run(&programs().join("handled"), &[]);
    assert!(run.records.is_empty() && run.status.success());
    assert_eq!(counted(run.stderr.as_bytes(), " handled"), 1);
    assert_eq!(counted(run.stderr.as_bytes(), " fatal"), 0);
}

#[apply(watch_test!)]
fn signals_that_dump_no_core_are_seen_when_asked_for() {
    let script = |text: &str| {
        let scratch = Scratch::new();
        run(&scratch.script("script", text), &["--signal", "TERM", "--signal", "9", "--handled"])
    };
    let terminated = script("kill -TERM $$");
    assert_eq!(terminated.status.code(), Some(143));
    assert_eq!(terminated.records.len(), 1, "{:#?}", terminated.records);
    assert_eq!(terminated.records[0]["signal"], "SIGTERM");
    assert_eq!(terminated.records[0]["disposition"], "fatal");
    assert_eq!(terminated.records[0]["code"], "SI_USER", "the kernel has thrown it away, and we have noted it");
    assert_eq!(terminated.records[0]["sender"]["comm"], "script");
    assert_eq!(terminated.records[0]["sender"]["pid"], terminated.records[0]["pid"]);
    let killed = script("kill -KILL $$");
    assert_eq!(killed.status.code(), Some(137));
    assert_eq!(killed.records.len(), 1, "{:#?}", killed.records);
    assert_eq!(killed.records[0]["signal"], "SIGKILL");
    let other = script("sleep 60 & kill -KILL $!; wait $!");
    assert_eq!((other.status.code(), other.records.len()), (Some(137), 1), "{:#?}", other.records);
    let sender = &other.records[0]["sender"];
    assert_eq!(
        (&sender["comm"], &sender["pid"]),
        (&"script".into(), &other.records[0]["ppid"]),
        "{:#?}",
        other.records
    );
    assert_eq!((&sender["tid"], &sender["uid"]), (&sender["pid"], &0.into()));
    let handled = script("trap 'exit 3' TERM; kill -TERM $$; sleep 1");
    assert_eq!(handled.status.code(), Some(3));
    assert_eq!(handled.records.len(), 1, "{:#?}", handled.records);
    assert_eq!(handled.records[0]["disposition"], "handled");
    assert_eq!(handled.records[0]["code"], "SI_USER");
}

#[apply(watch_test!)]
fn without_privileges_the_cure_is_said() {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"])
        .args([FAULTLINE, "crash", "-d", "1"])
        .watch();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("needs CAP_BPF and CAP_PERFMON: run as root, or setcap "), "{text}");
}

#[apply(watch_test!)]
fn two_capabilities_are_enough() {
    let (record, text) = with_capabilities("+bpf,+perfmon");
    assert_eq!((&record["uid"], &record["signal"]), (&65534.into(), &"SIGSEGV".into()));
    assert!(record["registers"][arch::INSTRUCTION_POINTER].is_string() && record["build_id"].is_string(), "{record:#}");
    assert_eq!(text.lines().filter(|line| line.contains("are null")).count(), 1, "{text}");
    assert!(text.contains("faultline: without CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, symbols of "), "{text}");
}
