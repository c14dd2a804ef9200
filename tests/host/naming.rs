//! The two children that open and parse the files of watched processes: what becomes of records when they end.

use std::process::Command;
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;

use crate::harness::runs::watch_test;
use crate::harness::{Scratch, child, counted, die, named};
use crate::hidden::{Watch, innermost};

/// Waits until it has ended, whether its parent knows already or not.
fn await_end(pid: u32) {
    let stat = || procfs::process::Process::new(pid.cast_signed()).and_then(|process| process.stat());
    let deadline = Instant::now() + Duration::from_secs(30);
    while stat().is_ok_and(|stat| stat.state != 'Z') {
        assert!(Instant::now() < deadline, "{pid} lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[apply(watch_test!)]
fn a_child_that_ends_is_no_crash_and_is_replaced() {
    let scratch = Scratch::new();
    let program = named(&scratch, "null-write", "replaced-3c");
    let mut watch = Watch::start("replaced-3c", &["-n", "fl-namer", "-n", "fl-opener"]);
    let assert_next_is_named = |watch: &mut Watch| {
        die(&program);
        let record = watch.next();
        assert_eq!((&record["comm"], innermost(&record).0), (&"replaced-3c".into(), Some("write_field")), "{record:#}");
    };
    assert_next_is_named(&mut watch);
    for (name, signal) in [("fl-namer", "SEGV"), ("fl-opener", "ABRT"), ("fl-namer", "BUS"), ("fl-opener", "KILL")] {
        let parent = watch.watching.child.id();
        let pid = child(parent, name);
        assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
        await_end(pid);
        assert_next_is_named(&mut watch);
        assert_ne!(child(parent, name), pid);
    }
    let output = watch.watching.stop("TERM");
    assert_eq!(counted(&output.stderr, " fatal"), 5);
}
