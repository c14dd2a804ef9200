//! Compares each program of `tests/programs` with its ground truth, field by field, and with the snapshot of its record.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::built;
use crate::compile::compile;
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, arch, at, build_id, check, hex, is_built, programs, run, source};
use crate::snapshot::compare;

/// One test a program, by its name.
macro_rules! programs {
    ($list:ident $($test:ident $name:literal)*) => {
        $(#[apply(watch_test!)] fn $test() { compare($name, &check($name)); })*
        pub(super) const $list: &[&str] = &[$($name),*];
    };
}

/// The programs whose header says everything.
pub(crate) fn plain() -> Vec<&'static str> {
    let all = PLAIN.iter().chain(x86_64::PLAIN).copied();
    all.filter(|name| is_built(name)).collect()
}

programs! {
    PLAIN
    null_write "null-write"
    readonly_write "readonly-write"
    nx_jump "nx-jump"
    null_call "null-call"
    stack_overflow_thread "stack-overflow-thread"
    guard_page "guard-page"
    bus_error "bus-error"
    illegal_instruction "illegal-instruction"
    breakpoint "breakpoint"
    failed_assert "failed-assert"
    smashed_stack "smashed-stack"
    seccomp_trap "seccomp-trap"
    sent_segv "sent-segv"
    handled "handled"
    one_of_eight_threads "one-of-eight-threads"
    forked_child "forked-child"
    after_exec "after-exec"
    static_executable "static"
    seccomp_kill "seccomp-kill"
    caught_abort "caught-abort"
    caught_raise "caught-raise"
    caught_exit "caught-exit"
    caught_overflow "caught-overflow"
    default_again "default-again"
    lived_on "lived-on"
    forged "forged"
    forged_call "forged-call"
    exit_signal "exit-signal"
    exit_signal_reaped "exit-signal-reaped"
    exit_signal_waited "exit-signal-waited"
    io_signal "io-signal"
    in_libc "in-libc"
    in_handler "in-handler"
    deep "deep"
    own_malloc "own-malloc"
}

/// The same of programs that can't be built for another architecture; each header says why.
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{apply, check, compare, watch_test};

    programs! {
        PLAIN
        non_canonical "non-canonical"
        divide_by_zero "divide-by-zero"
        second_trap "second-trap"
        second_trap_again "second-trap-again"
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod x86_64 {
    pub(super) const PLAIN: &[&str] = &["non-canonical", "divide-by-zero", "second-trap", "second-trap-again"];
}

/// The programs of what only processors of arm64 check.
const ARM64: &[&str] = &[
    "forged-tag",
    "misaligned-access",
    "misaligned-jump",
    "no-landing-pad",
    "tag-mismatch",
    "tag-noted",
    "wrong-signature",
];

#[cfg(target_arch = "aarch64")]
#[apply(watch_test!)]
fn what_only_this_processor_checks() {
    for name in ARM64 {
        check(name);
    }
    let text = |name| check(name)["diagnosis"]["text"].as_str().unwrap().to_owned();
    let tag = text("tag-mismatch");
    assert!(tag.starts_with("writes 0x") && tag.contains(" is 0x100"), "the pointer with its tag: {tag}");
    let access = text("misaligned-access");
    assert!(access.starts_with("reads 0x") && access.contains("not a multiple of 8, by an instruction"), "{access}");
    let landing = text("no-landing-pad");
    assert!(landing.starts_with("calls 0x"), "{landing}");
    let jump = text("misaligned-jump");
    assert!(jump.ends_with("where no instruction can be: it is not a multiple of 4"), "{jump}");
}

/// The programs that have a test of their own below.
const SPECIAL: &[&str] = &[
    "abort",
    "alike",
    "any-deaths",
    "bad-altstack",
    "bad-sigreturn",
    "below-a-stack",
    "blocked-term",
    "call-causes",
    "calls",
    "caught-beside",
    "caught-mapped",
    "caught-pair",
    "caught-second",
    "closed",
    "deleted-exe",
    "faults",
    "forged-build-id",
    "gives-up",
    "gives-up-static",
    "guard-mark",
    "handled-again",
    "holds-files",
    "kills",
    "large-frame-main",
    "large-frame-thread",
    "made-up",
    "many-deaths",
    "many-faults",
    "memory-cases",
    "memory-pages",
    "namespaces",
    "no-tables",
    "own-account",
    "own-devices",
    "own-terminal",
    "recovered-deeper",
    "recovered-fault",
    "recovered-thread",
    "senders",
    "no-code",
    "no-guard",
    "no-page",
    "no-pointer",
    "run-file",
    "shared-reader",
    "signal-frame",
    "signal-frame-guard",
    "stack-overflow",
    "stack-pages",
    "stale-trap",
    "stale-trap-late",
    "stripped",
    "tasks",
    "thread-seccomp",
];

#[apply(watch_test!)]
fn no_program_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let there: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".c").map(str::to_owned))
        .collect();
    let tested: BTreeSet<String> =
        PLAIN.iter().chain(x86_64::PLAIN).chain(ARM64).chain(SPECIAL).map(|&name| name.to_owned()).collect();
    assert_eq!(there, tested);
    let only_on_x86_64 = |name: &&str| source(name).contains("\n * only on x86_64: ");
    assert!(x86_64::PLAIN.iter().all(only_on_x86_64), "each says why");
    assert!(!PLAIN.iter().any(only_on_x86_64), "no test is left out");
    assert!(ARM64.iter().all(|name| source(name).contains("\n * only on arm64: ")), "each says why");
}

#[apply(watch_test!)]
fn stack_overflow() {
    let record = check("stack-overflow");
    let (fault, above) = (hex(&record["fault_address"]), hex(&record["vma_above"]["start"]));
    assert!(fault < above && above - fault <= arch::page_size(), "{fault:#x} is just below the stack at {above:#x}");
    let distance = fault.abs_diff(hex(&record["registers"][arch::STACK_POINTER]));
    assert!(distance < 4096, "the stack pointer is {distance} bytes away");
    assert_eq!(record["stack_trace"].as_array().unwrap().len(), 16, "the depth that was asked for");
    assert_eq!(record["stack_complete"], false);
}

#[apply(watch_test!)]
fn blocked_term() {
    // It is not in the list above, because kprobes don't show it.
    check("blocked-term");
}

#[apply(watch_test!)]
fn abort() {
    let record = check("abort");
    let innermost = &record["stack_trace"][0];
    let module = innermost["module"].as_str().unwrap();
    assert!(module.contains("libc"), "abort() ends in libc: {module}");
    assert_eq!(innermost["build_id"], build_id(Path::new(module)).as_str());
}

#[apply(watch_test!)]
fn a_trap_of_before_is_not_this_signals() {
    // Their stack pointers lead to no frames, so that they have no snapshot.
    check("stale-trap");
    check("stale-trap-late");
}

#[apply(watch_test!)]
fn shared_reader() {
    check("shared-reader");
}

#[apply(watch_test!)]
fn a_stack_without_room_for_a_handlers_frame() {
    // As above.
    check("signal-frame");
    check("signal-frame-guard");
    // The kernel sends the same signal where a frame fails for another reason.
    check("bad-altstack");
    check("bad-sigreturn");
}

/// A fault whose handler was left is never the end, though its signal frame lies on the stack.
#[apply(watch_test!)]
fn a_recovered_fault_is_not_the_end() {
    let record = check("lived-on");
    assert_eq!(at(&record, "earlier_fault.stack_trace.0.symbol").as_str().unwrap().split('+').next(), Some("touch"));
    check("recovered-fault");
    check("recovered-deeper");
}

/// The same where it exits: there is no record, and nothing is counted but the faults that were handled.
#[apply(watch_test!)]
fn an_exit_after_a_recovered_fault_is_no_death() {
    let exits = |program: &str, arguments: &str, status: i32, handled: u64| {
        let scratch = Scratch::new();
        let run = built::run(&scratch, &format!("{} {arguments}", programs().join(program).display()));
        assert_eq!((run.status, run.crashes.len()), (status, 0), "{program} {arguments}: {:#?}", run.crashes);
        assert_eq!(run.counts, BTreeMap::from([("handled".to_owned(), handled)]), "{program} {arguments}");
        assert_eq!(run.losses["caught_undecided"], 0, "{program} {arguments}");
    };
    exits("lived-on", "3", 3, 100);
    exits("recovered-thread", "", 3, 1);
    exits("recovered-thread", "stays", 3, 1);
}

#[apply(watch_test!)]
fn a_second_fault_is_in_the_first_ones_record() {
    let record = check("caught-second");
    let frames = at(&record, "ended_by.stack_trace").as_array().unwrap();
    let names = frames.iter().filter_map(|frame| frame["symbol"].as_str()?.split('+').next());
    assert_eq!(names.take(2).collect::<Vec<_>>(), ["report", "handle"], "{record:#}");
    assert!(frames.iter().all(|frame| !frame["symbol"].as_str().is_some_and(|name| name.starts_with("touch"))));
}

/// The callers of a frame that finds no room are in the part of the stack that is there.
#[apply(watch_test!)]
fn a_frame_that_is_larger_than_the_stack() {
    let text = |record: &Value| record["diagnosis"]["text"].as_str().unwrap().to_owned();
    let thread = text(&check("large-frame-thread"));
    assert!(
        thread.starts_with("stack overflow of the thread `player`: the frame of statistics has 1.0 MiB"),
        "{thread}"
    );
    let main = text(&check("large-frame-main"));
    assert!(main.starts_with("stack overflow of the main thread: the frame of statistics has 48.0 MiB"), "{main}");
    check("below-a-stack");
}

#[apply(watch_test!)]
fn what_a_handler_has_mapped_was_not_there() {
    check("caught-mapped");
}

#[apply(watch_test!)]
fn callers_that_nothing_proves_are_not_the_outermost() {
    check("no-tables");
}

#[apply(watch_test!)]
fn deleted_exe() {
    let record = check("deleted-exe");
    // Only the offset names the place, and it is right: it is the same as in the program that this one was copied from.
    let innermost = &record["stack_trace"][0];
    assert_eq!(innermost["build_id"], record["build_id"]);
    assert!(innermost["module"].as_str().unwrap().ends_with(" (deleted)"));
    assert_eq!(hex(&innermost["address"]) % arch::page_size(), hex(&innermost["offset"]) % arch::page_size());
    let symbol = record["instruction_symbol"].as_str();
    assert!(symbol.is_none_or(|symbol| symbol.starts_with("touch+")), "{symbol:?}");
}

#[apply(watch_test!)]
fn namespaces() {
    let record = check("namespaces");
    assert_ne!(record["pid"], 1, "the host has another number for it");
    // At that path we see another file, or none: the names are from the right file, or there are none.
    let symbol = record["instruction_symbol"].as_str();
    assert!(symbol.is_none_or(|symbol| symbol.starts_with("touch+")), "{symbol:?}");
}

#[apply(watch_test!)]
fn stripped() {
    let record = check("stripped");
    let frames = record["stack_trace"].as_array().unwrap();
    for frame in &frames[..2] {
        assert_eq!(frame["build_id"], record["build_id"]);
        assert_eq!(frame["module"], record["exe"]);
        assert_eq!(hex(&frame["address"]) % arch::page_size(), hex(&frame["offset"]) % arch::page_size());
    }
    assert!(frames[0]["file"].is_null() && frames[0]["line"].is_null());
}

#[apply(watch_test!)]
fn source_lines_are_the_programs() {
    let record = check("null-write");
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/null-write.c")).unwrap();
    let line_of = |text: &str| source.lines().position(|line| line.contains(text)).unwrap() as u64 + 1;
    let frames = record["stack_trace"].as_array().unwrap();
    for (frame, text) in frames.iter().zip(["AT(fault_here,", "\twrite_field(item);", "\tupdate(NULL);"]) {
        assert!(frame["file"].as_str().unwrap().ends_with("null-write.c"), "{frame}");
        assert_eq!(frame["line"], line_of(text), "{text}");
    }
}

#[apply(watch_test!)]
fn one_bug_has_one_signature() {
    let signature = |name: &str| check(name)["signature"].as_str().unwrap().to_owned();
    let first = signature("null-write");
    assert_eq!(first.len(), 16);
    let scratch = Scratch::new();
    let randomly = scratch.path("randomly");
    compile("randomly.c", &randomly, &[]);
    let program = programs().join("null-write");
    let script = scratch.script("script", &format!("exec {} {}", randomly.display(), program.display()));
    let again = &run(&script, &["-r", "-t"]).records[0];
    let before = check("null-write");
    assert_ne!(before["pid"], again["pid"]);
    assert_ne!(before["instruction_pointer"], again["instruction_pointer"]);
    assert_eq!(first, again["signature"].as_str().unwrap(), "another process, another layout");
    assert_ne!(first, signature("readonly-write"));
    assert_ne!(signature("null-call"), signature("static"));
    assert!(programs().join("null-write").exists());
}
