//! Runs of our programs that the kernel has skipped, and counts: a test that fails where it lacks one is run once more.
//!
//! From 7.0 on the kernel skips the run of a program in which a preempted task is on that processor; of a kretprobe it skips those of too
//! many calls at once. What such a run would have seen is in no record, and faultline counts it: as `runs_missed` and its kin. A test
//! that expects all records fails then, although nothing is wrong.
//!
//! So every test is a [`watch_test`]. Whatever the test reads of faultline passes through [`note`], which adds up what was missed. If the
//! test fails and the sum isn't 0, it is run once more, from its beginning; a test that fails though nothing was missed has failed. That is
//! no weakening: each assertion must hold in one whole run, and no run with fewer records than it expects passes.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The losses that mean that a run was skipped, or that it found a preempted one in its way.
const REASONS: [&str; 6] = ["runs_missed", "ends_missed", "forks_missed", "exits_missed", "majors_missed", "look_busy"];

/// So often a test is run once more.
pub(crate) const AGAIN_MAX: u32 = 4;

thread_local! {
    /// What was missed in this run of the test.
    static MISSED: Cell<u64> = const { Cell::new(0) };
    /// How often the test was run before.
    static RUNS_BEFORE: Cell<u32> = const { Cell::new(0) };
}

/// A test, as `#[apply(watch_test!)]`: see the file's head.
#[allow(unused_macros)] // where the harness is all that is used
macro_rules! watch_test {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $(#[$attribute])*
        #[test]
        fn $name() {
            $crate::harness::runs::with_all_runs(|| $body);
        }
    };
}
#[allow(unused_imports)] // the same
pub(crate) use watch_test;

/// Runs a test, once more if it fails and the kernel has skipped runs.
pub(crate) fn with_all_runs(test: impl Fn()) {
    for before in 0.. {
        RUNS_BEFORE.set(before);
        MISSED.set(0);
        match catch_unwind(AssertUnwindSafe(&test)) {
            Ok(()) => return,
            Err(_) if is_to_be_run_again(before) => eprintln!("once more: {} runs were skipped", MISSED.get()),
            Err(failed) => resume_unwind(failed),
        }
    }
}

fn is_to_be_run_again(before: u32) -> bool {
    before < AGAIN_MAX && MISSED.get() != 0
}

/// Has the test failed before, where runs were missing?
pub(crate) fn is_again() -> bool {
    RUNS_BEFORE.get() != 0
}

/// Adds to what was missed.
pub(crate) fn add(missed: u64) {
    MISSED.set(MISSED.get() + missed);
}

/// Adds what faultline says that was missed, in a record or in the line at its end. Saying it twice does no harm.
pub(crate) fn note(said: &[u8]) {
    let text = String::from_utf8_lossy(said);
    add(REASONS.iter().flat_map(|reason| text.split(reason).skip(1)).filter_map(number).sum());
}

/// The number that follows the name of a loss, as in `runs_missed 3`, `"runs_missed":3` and `reason="runs_missed"} 3`.
fn number(rest: &str) -> Option<u64> {
    rest.trim_start_matches(['"', ':', '}', ' ']).split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A command that runs faultline.
pub(crate) trait Watch {
    /// Runs it to its end, and notes what was missed.
    fn watch(&mut self) -> Output;
}

impl Watch for Command {
    fn watch(&mut self) -> Output {
        let output = self.output().unwrap();
        note(&output.stderr);
        note(&output.stdout);
        output
    }
}

/// What several tests look at, made once. A test that is run once more makes its own.
pub(crate) struct Shared<T>(OnceLock<(Arc<T>, u64)>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    pub(crate) fn get(&self, make: impl Fn() -> T) -> Arc<T> {
        if is_again() {
            return Arc::new(make());
        }
        let (made, missed) = self.0.get_or_init(|| {
            let before = MISSED.replace(0);
            let made = Arc::new(make());
            (made, MISSED.replace(before))
        });
        add(*missed);
        Arc::clone(made)
    }
}

/// The next line. A record of which the kernel has skipped the run never comes: the test fails then, instead of waiting for ever.
pub(crate) fn next_line(from: &mut BufReader<impl Read + AsFd>) -> String {
    const MS_MAX: u16 = 60_000;
    if from.buffer().is_empty() {
        let mut fds = [PollFd::new(from.get_ref().as_fd(), PollFlags::POLLIN)];
        assert_ne!(poll(&mut fds, PollTimeout::from(MS_MAX)).unwrap(), 0, "no line in {MS_MAX} ms");
    }
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}
