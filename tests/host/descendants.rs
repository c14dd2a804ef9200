//! The descendants of a command that outlive it.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;

use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, programs, records};

/// Runs this shell under `faultline crash`; its records, and all else.
fn crash(flags: &[&str], shell: &str) -> (usize, Output) {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let output = Command::new(FAULTLINE)
        .args(["crash", "--format", "json", "--output"])
        .arg(&file)
        .args(flags)
        .args(["--", "sh", "-c", shell])
        .watch();
    (records(std::fs::read(&file).unwrap()).len(), output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A child that waits for a fifo to be opened, and then dies.
fn dies_late(fifo: &Scratch) -> String {
    let (fifo, program) = (fifo.path("fifo"), programs().join("null-write"));
    format!("mkfifo {0}; (cat {0}; {1}) >/dev/null 2>&1 & exit 3", fifo.display(), program.display())
}

#[apply(watch_test!)]
fn those_that_outlive_the_command_are_counted() {
    let scratch = Scratch::new();
    let (records, output) = crash(&[], &dies_late(&scratch));
    let said = said(&output);
    assert_eq!((records, output.status.code()), (0, Some(3)), "{said}");
    assert!(said.contains("descendant"), "{said}");
    assert!(said.contains("no longer watched; --wait-descendants waits for them"), "{said}");
    // The one that waits for it goes on.
    std::fs::write(scratch.path("fifo"), "go on\n").unwrap();
}

#[apply(watch_test!)]
fn those_that_are_waited_for_are_watched() {
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    let opens = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(60);
        while !fifo.exists() && Instant::now() < until {
            std::thread::yield_now();
        }
        std::fs::write(fifo, "go on\n")
    });
    let (records, output) = crash(&["--wait-descendants"], &dies_late(&scratch));
    opens.join().unwrap().unwrap();
    let said = said(&output);
    assert_eq!((records, output.status.code()), (1, Some(3)), "{said}");
    assert!(!said.contains("descendant of the command") && !said.contains("descendants of the command"), "{said}");
}

#[apply(watch_test!)]
fn those_that_have_ended_are_not_mentioned() {
    for flags in [&[][..], &["--wait-descendants"]] {
        let (_, output) = crash(flags, "true & wait; sh -c 'exit 4'; exit 3");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(!said.contains("no longer watched"), "{said}");
    }
}
