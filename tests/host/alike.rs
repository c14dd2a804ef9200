//! Walks the table of docs/diagnosis.md with programs: for each sentence there is one of which it is said, and two that die of the same signal with
//! the same code and of which it isn't. What each program says itself is held by `tests/host/sentences.rs`, `tests/vm/sentences.rs` and the headers of
//! `tests/programs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::{compile, compile_with};
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, programs, run};
use crate::messages::{GO, RUST};
use crate::rows::{row_of, rows};

/// The programs of `tests/programs`, with the ways in which each dies.
const PROGRAMS: [(&str, &str); 22] = [
    (
        "alike",
        "thread-data newer port crowded nowhere relro section abort absolute aligned before bit bit-of-null bus-forged bus-raised by-zero \
         canonical cli element far far-element forged fp-denormal fp-inexact fp-inexact?forged fp-inexact?masked fp-invalid fp-invalid?forged \
         fp-invalid?masked fp-over fp-over?forged fp-over?masked fp-under fp-under?forged fp-under?masked fp-zero fp-zero?forged \
         fp-zero?masked fpe-forged fpe-raised hidden high hlt ill-forged ill-raised int1 int3 int3-forged int3-next interrupt itself jmp-buf \
         kept-alive kernels kernels-code led-back near no-code no-room no-stack nothing plain pointer raised refused refused-forged register \
         return scaled sent size size-raised size-sent step summed sys-forged sys-raised time time-forged time-raised too-large trap-raised \
         trapped ud2 unaligned unaligned-forged unaligned-next",
    ),
    ("closed", "literal got data program shared file unreserved memory merged poked never code freed guard"),
    (
        "no-code",
        "register kept tail-register slot tail tail-slot return label wild wild-tail wild-return pushed longjmp gone end \
         unloaded retpoline",
    ),
    ("no-page", "short empty cut full huge missing behind"),
    ("no-pointer", "field member integer rounded own extended cut block pair negative failed pages mapping"),
    ("gives-up", "format longjmp fd-set overflow mode twice asserts raises itself"),
    ("gives-up", "itself?first"),
    ("gives-up-static", "overflow mode twice format"),
    ("smashed-stack", ""),
    ("stack-overflow", ""),
    ("stack-overflow-thread", ""),
    ("large-frame-main", ""),
    ("large-frame-thread", ""),
    ("guard-page", ""),
    ("guard-mark", ""),
    ("guard-mark", "far"),
    ("no-guard", "hole closed wrong-end guarded pointer taken"),
    ("nx-jump", ""),
    ("stripped", ""),
    ("thread-seccomp", "filter"),
    ("bus-error", ""),
    ("signal-frame", ""),
];

/// The sentences without a program, by their begin: what they need is not at hand wherever this runs.
const WITHOUT: [(&str, &str); 32] = [
    ("<> address 0: a NULL pointer", "an instruction that isn't decoded"),
    ("<> address <>: near NULL, as a field at that offset of a NULL pointer is", "the same"),
    ("jumps to NULL: the code itself calls", "a program that isn't position-independent"),
    ("writes to read-only memory (<>): code, or what is mapped with it", "a file without sections"),
    ("<> memory<> that the thread's protection key closes", "protection keys"),
    ("<> <>, which <> unmapped", "`call`: tests/vm/call_cause.rs"),
    ("<> <>, which <> moved away", "the same"),
    ("<> a mapping of <> behind the file's end: <> cut it", "the same"),
    ("stack overflow of the main thread: the stack of <> cannot grow any further", "a lack of memory"),
    ("returns to another place than it was called from", "shadow stacks"),
    ("executes <>, which needs <>", "a processor that lacks an instruction"),
    ("<> a mapping of <> inside the file, and its disk is full", "a disk of its own"),
    ("<> shared memory (<>) inside its <> bytes", "a memory cgroup, or swap that fails"),
    ("<> a mapping of <> inside the file, whose page could not be brought in: the disk is full", "a disk that fails"),
    ("<> a mapping of <> inside the file, whose page could not be brought in: its disk or network", "the same"),
    ("<> a mapping of huge pages (<>), and none", "huge pages"),
    ("<> a mapping of huge pages (<>), of which", "a limit of huge pages"),
    ("the hardware has lost the contents", "memory that fails"),
    ("<> a page that is marked as lost", "a kernel with UFFDIO_POISON"),
    ("locks <>, which lies across two cache lines", "split_lock_detect=fatal"),
    ("<> <> by a pointer with another tag than the memory", "arm64: tests/programs"),
    ("has accessed memory by a pointer with another tag", "the same"),
    ("<> <> by a pointer, where no landing pad is", "the same"),
    ("returns to <>, whose signature is wrong", "the same"),
    ("<> <>, which is not a multiple of <>, by an instruction", "the same"),
    ("jumps to <>, where no instruction can be", "the same"),
    ("the return address has a wrong signature", "arm64, a processor with FEAT_FPAC"),
    ("uses a pointer with a wrong signature", "the same"),
    ("accesses memory by a stack pointer", "arm64, a processor that checks it"),
    ("<> ends it for a lack of memory", "seconds: tests/host/messages.rs"),
    ("a C++ exception<> that nobody catches, as far", "code without call frame information"),
    ("a C++ exception met <>, which it may not leave", "the same"),
];

#[apply(watch_test!)]
fn each_sentence_has_a_program_and_two_that_look_alike() {
    let scratch = Scratch::new();
    let mut lines = Vec::new();
    for (program, ways) in PROGRAMS {
        let ways: Vec<&str> = if ways.is_empty() { vec![""] } else { ways.split(' ').collect() };
        lines
            .extend(ways.iter().map(|way| format!("{} {}", programs().join(program).display(), way.replace('?', " "))));
    }
    let cases = "uncaught noexcept scoped destructor rethrow by-hand cancel joinable pure alone";
    for (standard, cases) in [("-std=c++17", cases), ("-std=c++14", "listed")] {
        let program: PathBuf = scratch.path(standard);
        compile("terminate.cc", &program, &["-pthread", "-lstdc++", standard]);
        lines.extend(cases.split(' ').map(|case| format!("{} {case}", program.display())));
    }
    for (name, arguments, ways) in [
        ("halts", &[][..], "join smash itself returns"),
        ("halts-linked", &["-static"], "overrun smash itself among"),
        ("halts-stripped", &["-static", "-s"], "overrun foreign smash join itself returns"),
    ] {
        let program = scratch.path(name);
        compile_with("musl-gcc", "halts.c", &program, &[&["-O2", "-fstack-protector-all"], arguments].concat());
        lines.extend(ways.split(' ').map(|way| format!("{} {way}", program.display())));
    }
    let (clangs, source) = (scratch.path("clangs"), "tests/vm/programs/terminate.cc");
    let mut clang = Command::new("clang++");
    clang.args(["-g", "-O0", "-pthread", "-o"]).arg(&clangs).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    assert!(clang.status().unwrap().success());
    lines.push(format!("{} noexcept", clangs.display()));
    let stripped = scratch.path("alike-stripped");
    assert!(Command::new("strip").arg("-o").arg(&stripped).arg(programs().join("alike")).status().unwrap().success());
    lines.push(format!("{} abort", stripped.display()));
    let (rust, go) = (RUST.folder(), GO.folder());
    lines.extend(["literal", "allocate"].map(|way| format!("{} {way}", rust.path("panics").display())));
    lines.push(format!("env GOTRACEBACK=crash {} text", go.path("panics").display()));
    let script = lines.iter().map(|line| format!("{line} </dev/null >/dev/null 2>&1")).collect::<Vec<_>>().join("\n");
    let all = run(&scratch.script("all", &(script + "\nexit 0")), &["-t", "-r"]);
    let rows = rows();
    let said: Vec<((&Value, &Value), Option<usize>)> = all
        .records
        .iter()
        .filter(|record| record["type"] == "crash")
        .map(|crash| ((&crash["signal"], &crash["code"]), row(&rows, crash)))
        .collect();
    let mut missing = BTreeSet::new();
    for (index, row) in rows.iter().enumerate() {
        let of: Vec<(&Value, &Value)> = said.iter().filter(|(_, row)| *row == Some(index)).map(|(of, _)| *of).collect();
        let alike = said.iter().filter(|(signal, row)| of.contains(signal) && *row != Some(index)).count();
        let is_listed = WITHOUT.iter().any(|(begin, _)| row.sentence().starts_with(begin));
        let about = format!("{}: {}", row.kind, row.sentence());
        if of.is_empty() && !is_listed {
            missing.insert(format!("no program: {about}"));
        } else if !of.is_empty() && alike < 2 {
            missing.insert(format!("{alike} look-alikes: {about}"));
        }
    }
    assert!(missing.is_empty(), "of {} crashes: {missing:#?}", said.len());
}

/// The row of what is said of a crash. `None` means that nothing is said.
fn row(rows: &[crate::rows::Row], crash: &Value) -> Option<usize> {
    let found = &crash["diagnosis"];
    let text = found["text"].as_str()?;
    row_of(rows, (found["kind"].as_str()?, found["confidence"] == "certain", text), crash["abort_message"].as_str())
}
