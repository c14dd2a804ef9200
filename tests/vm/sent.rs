//! Runs of `faultline signal`.

use std::process::{Command, Output};

use crate::harness::runs::Watch;
use crate::harness::{FAULTLINE, Watching};

/// Runs it to its end.
pub(crate) fn signal(arguments: &[&str]) -> Output {
    Command::new(FAULTLINE).arg("signal").args(arguments).watch()
}

/// Starts it, and waits until it is attached.
pub(crate) fn watching(arguments: &[&str]) -> Watching {
    let (watching, line) = Watching::try_start(Command::new(FAULTLINE).arg("signal").args(arguments));
    assert!(line.starts_with("faultline: watching "), "{line}");
    watching
}

/// What it said on standard error.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
