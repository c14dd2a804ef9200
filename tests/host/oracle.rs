//! gdb as the oracle: its stack of a crash and ours have the same names.

use std::fs;
use std::path::Path;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::watch_test;
use crate::harness::{FAULTLINE, Scratch, programs, run};

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
fn by_gdb(program: &Path) -> Vec<String> {
    let scratch = Scratch::new();
    let walk = scratch.path("walk.py");
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
        let gdb = by_gdb(&programs().join(name));
        let ours = by_faultline(record);
        assert!(gdb.len() > 1 && ours.len() >= gdb.len(), "{name}: {ours:?} is shorter than {gdb:?}");
        for (index, (theirs, own)) in gdb.iter().zip(&ours).enumerate() {
            let is_same = theirs == own || (theirs == "<signal>" && (own.contains("restore") || own == "??"));
            assert!(is_same, "{name}: frame {index}: gdb has {gdb:?}, we have {ours:?}");
        }
    }
}

/// Without a libc, which a machine need not have for 32-bit programs. `HOW` is how it ends.
const COMPAT: &str = "
static int __attribute__((noinline)) fault(volatile int *p, int n) { HOW; return *p + n; }
static int __attribute__((noinline)) inner(volatile int *p, int n) { int r = fault(p, n * 3); return r * n; }
static int __attribute__((noinline)) outer(int n)
{
	volatile int local[8];
	for (int i = 0; i < 8; i++)
		local[i] = n;
	int r = inner((int *)local[3], n);
	return r + local[2];
}
void _start(void)
{
	int r = outer(0x10);
	__asm__ volatile(\"int $0x80\" ::\"a\"(1), \"b\"(r));
	__builtin_unreachable();
}
";

/// Names, how they end, and how they are compiled: with and without an index, position-independent, with frame pointers alone, with debug
/// information alone, and that for 64 bits, too.
const COMPAT_PROGRAMS: [(&str, &str, &[&str]); 7] = [
    ("plain", "", &["-static", "-fomit-frame-pointer"]),
    ("index", "", &["-static", "-fomit-frame-pointer", "-Wl,--eh-frame-hdr"]),
    ("pie", "", &["-static-pie", "-fPIE", "-fomit-frame-pointer"]),
    ("pointers", "", &["-static", "-O0", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables"]),
    ("null-call", "((int (*)(void))p)()", &["-static", "-fomit-frame-pointer"]),
    // Only debug information describes them.
    ("debug", "", &["-static", "-fomit-frame-pointer", "-fno-asynchronous-unwind-tables"]),
    ("wide-debug", "", &["-m64", "-static", "-fomit-frame-pointer", "-fno-asynchronous-unwind-tables", "-gz=zlib"]),
];

#[apply(watch_test!)]
fn the_stack_of_a_32_bit_process_is_gdbs() {
    let scratch = Scratch::new();
    let build = |(name, how, flags): &(&str, &str, &[&str])| {
        let (source, program) = (scratch.path(&format!("{name}.c")), scratch.path(name));
        fs::write(&source, COMPAT.replace("HOW", how)).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-m32", "-nostdlib", "-O1", "-g", "-fno-optimize-sibling-calls", "-fno-stack-protector"])
            .args(*flags);
        let output = gcc.arg("-o").args([&program, &source]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        program
    };
    let all = COMPAT_PROGRAMS.each_ref().map(build);
    let lines = all.each_ref().map(|program| program.display().to_string());
    let run = run(&scratch.script("all", &(lines.join("\n") + "\nexit 0")), &["-t"]);
    assert_eq!(run.records.len(), all.len(), "{}", run.stderr);
    for (program, record) in all.iter().zip(&run.records) {
        let ours = by_faultline(record);
        if program.ends_with("null-call") {
            // gdb goes no further than that there is no code.
            assert_eq!(ours[..5], ["??", "fault", "inner", "outer", "_start"], "{record:#}");
            continue;
        }
        let gdb = by_gdb(program);
        let own = &gdb[..gdb.iter().position(|name| name == "_start").unwrap() + 1];
        assert!(own.len() == 4 && ours.starts_with(own), "{}: gdb has {gdb:?}, we have {ours:?}", program.display());
    }
}

/// `ci/names` has fifty more.
#[apply(watch_test!)]
fn programs_as_they_are_installed_have_gdbs_names() {
    const INSTALLED: [&str; 10] = ["bash", "dash", "perl", "cat", "sort", "sleep", "sed", "grep", "tar", "gzip"];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/names");
    let output = Command::new(script).args(["--faultline", FAULTLINE]).args(INSTALLED).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("10 programs") && said.contains(" 0 programs differ"), "{said}");
}
