//! gdb as the oracle: its stack of a crash and ours have the same names.

use std::fs;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::watch_test;
use crate::harness::{Scratch, programs, run};

/// Stacks with and without frame pointers, in libc, through a signal handler, through a call to NULL.
const PROGRAMS: [&str; 8] =
    ["null-write", "null-call", "abort", "failed-assert", "smashed-stack", "in-libc", "in-handler", "static"];

/// Prints the stack by gdb's own Python, without inlined functions and those that left by a tail call: these are guesses from debug
/// information, which libraries need not have.
const WALK: &str = "
frame = gdb.newest_frame()
while frame:
    if frame.type() == gdb.SIGTRAMP_FRAME:
        print('FRAME <signal>')
    elif frame.type() == gdb.NORMAL_FRAME:
        print('FRAME', frame.name() or '??')
    frame = frame.older()
";

/// The functions of gdb's stack, innermost first, down to main or the thread's start.
fn by_gdb(name: &str) -> Vec<String> {
    let scratch = Scratch::new();
    let walk = scratch.path("walk.py");
    fs::write(&walk, WALK).unwrap();
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "set debuginfod enabled off"])
        .args(["-ex", "handle SIGUSR1 nostop noprint pass", "-ex", "run", "-x"])
        .args([walk, programs().join(name)])
        .output()
        .expect("gdb is needed: apt-get install gdb");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("FRAME ")).map(str::to_owned).collect();
    assert!(names.len() > 1, "{text} {}", String::from_utf8_lossy(&output.stderr));
    names
}

/// The functions of a record's stack.
fn by_faultline(record: &Value) -> Vec<String> {
    let frames = record["stack_trace"].as_array().unwrap();
    frames
        .iter()
        .filter(|frame| frame["inlined"] == false)
        .map(|frame| frame["symbol"].as_str().map_or("??", |symbol| symbol.split('+').next().unwrap()).to_owned())
        .collect()
}

#[apply(watch_test!)]
fn the_stack_is_gdbs() {
    let scratch = Scratch::new();
    let lines = PROGRAMS.map(|name| programs().join(name).display().to_string());
    let all = run(&scratch.script("all", &(lines.join("\n") + "\nexit 0")), &["-t", "--max-stack-depth", "127"]);
    assert_eq!(all.records.len(), PROGRAMS.len(), "{}", all.stderr);
    for (name, record) in PROGRAMS.iter().zip(&all.records) {
        let gdb = by_gdb(name);
        let ours = by_faultline(record);
        assert!(gdb.len() > 1 && ours.len() >= gdb.len(), "{name}: {ours:?} is shorter than {gdb:?}");
        for (index, (theirs, own)) in gdb.iter().zip(&ours).enumerate() {
            let is_same = theirs == own || (theirs == "<signal>" && (own.contains("restore") || own == "??"));
            assert!(is_same, "{name}: frame {index}: gdb has {gdb:?}, we have {ours:?}");
        }
    }
}
