//! Which tasks are watched, and how much of their stack is shown.

use std::io::Write;
use std::process::{Command, Stdio};

use macro_rules_attribute::apply;

use crate::harness::runs::watch_test;
use crate::harness::{Scratch, Watching, counted, die, named, programs, records, run};

#[apply(watch_test!)]
fn names_are_filtered_in_the_kernel() {
    const MANY: u64 = 25;
    let scratch = Scratch::new();
    let other = named(&scratch, "null-write", "other-3b");
    let wanted = named(&scratch, "null-write", "x-wanted-3b-x");
    let watching = Watching::start(&["-n", "wanted-3b", "-n", "no-such-name", "--format", "json"]);
    for _ in 0..MANY {
        die(&other);
    }
    die(&wanted);
    let output = watching.stop("INT");
    assert!(output.status.success());
    let records = records(&output.stdout);
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(records[0]["comm"], "x-wanted-3b-x");
    assert_eq!(counted(&output.stderr, " signals matched"), 1);
    // Other tests crash at the same time: at least ours were filtered out.
    assert!(counted(&output.stderr, " filtered out in the kernel") >= MANY);
}

#[apply(watch_test!)]
fn the_name_is_the_group_leaders() {
    let scratch = Scratch::new();
    let program = named(&scratch, "one-of-eight-threads", "leader-9c");
    let watching = Watching::start(&["-n", "leader-9c", "--format", "json"]);
    die(&program);
    let records = records(&watching.stop("TERM").stdout);
    assert_eq!(records.len(), 1);
    assert_eq!((&records[0]["comm"], &records[0]["thread_name"]), (&"leader-9c".into(), &"worker-5".into()));
    let watching = Watching::start(&["-n", "worker-5"]);
    die(&program);
    assert!(watching.stop("TERM").stdout.is_empty(), "a thread's name is no process's");
}

#[apply(watch_test!)]
fn a_pid_is_one_process() {
    let child =
        |wait: &str| Command::new("sh").args(["-c", wait]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let (mut watched, mut other) = (child("read go; kill -SEGV $$"), child("read go; kill -SEGV $$"));
    let watching = Watching::start(&["-p", &watched.id().to_string(), "--format", "json"]);
    for shell in [&mut other, &mut watched] {
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
    }
    let records = records(&watching.stop("TERM").stdout);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["pid"], watched.id());
    assert_eq!(records[0]["code"], "SI_USER");
}

#[apply(watch_test!)]
fn the_stack_is_as_deep_as_asked() {
    let record = &run(&programs().join("stack-overflow"), &["-t", "--max-stack-depth", "127"]).records[0];
    assert_eq!(record["stack_trace"].as_array().unwrap().len(), 127);
}
