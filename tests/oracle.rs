//! gdb as the oracle: the stack that it shows of a crash, name by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const FAULTLINE: &str = env!("CARGO_BIN_EXE_faultline");

/// With and without frame pointers, in libc, through a signal handler, through a call to NULL.
const PROGRAMS: [&str; 8] =
    ["null-write", "null-call", "abort", "failed-assert", "smashed-stack", "in-libc", "in-handler", "static"];

fn program(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = here.join("target/programs");
    let made = Command::new("make")
        .args(["-s", "-C"])
        .arg(here.join("tests/programs"))
        .arg(format!("OUT={}", out.display()))
        .status();
    assert!(made.unwrap().success());
    out.join(name)
}

/// What gdb's own Python prints of the stack. Inlined functions and those that left by a tail call are guesses from debug
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
fn by_gdb(program: &Path) -> Vec<String> {
    let walk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("walk.py");
    fs::write(&walk, WALK).unwrap();
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "set debuginfod enabled off"])
        .args(["-ex", "handle SIGUSR1 nostop noprint pass", "-ex", "run", "-x"])
        .args([&walk, program])
        .output()
        .expect("gdb is needed: apt-get install gdb");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("FRAME ")).map(str::to_owned).collect();
    assert!(names.len() > 1, "{text} {}", String::from_utf8_lossy(&output.stderr));
    names
}

fn by_faultline(program: &Path) -> Vec<String> {
    let output = Command::new(FAULTLINE)
        .args(["crash", "-t", "--format", "json", "--max-stack-depth", "127", "--"])
        .arg(program)
        .output()
        .unwrap();
    // The program's own words may stand before it.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let record = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no record: {text}"));
    let record: Value = serde_json::from_str(record).unwrap();
    let frames = record["stack_trace"].as_array().unwrap();
    frames
        .iter()
        .filter(|frame| frame["inlined"] == false)
        .map(|frame| frame["symbol"].as_str().map_or("??", |symbol| symbol.split('+').next().unwrap()).to_owned())
        .collect()
}

#[test]
fn the_stack_is_gdbs() {
    for name in PROGRAMS {
        let program = program(name);
        let (gdb, ours) = (by_gdb(&program), by_faultline(&program));
        assert!(ours.len() >= gdb.len(), "{name}: {ours:?} is shorter than {gdb:?}");
        for (index, (theirs, own)) in gdb.iter().zip(&ours).enumerate() {
            let is_same = theirs == own || (theirs == "<signal>" && (own.contains("restore") || own == "??"));
            assert!(is_same, "{name}: frame {index}: gdb has {gdb:?}, we have {ours:?}");
        }
    }
}
