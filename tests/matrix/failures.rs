//! What the output of a guest says of the tests that failed there: `ci/vm` ends with it, so that the tail of its output is enough.

use std::fmt::Write as _;

/// So many lines are shown of each failure.
pub(crate) const LINES_MAX: usize = 40;

/// Each failed test and what it said, in the order of the output. libtest repeats what a test has printed in a section of its own,
/// `---- NAME stdout ----`; what has none, as the look at the kernel's log, is shown with the lines before its verdict.
pub(crate) fn failures(lines: &[String]) -> Vec<(&str, &[String])> {
    let verdict = |line: &str| -> Option<usize> {
        let (before, _) = line.trim_end().strip_suffix(" ... FAILED")?.rsplit_once("test ")?;
        Some(before.len() + "test ".len())
    };
    let is_header =
        |line: &str| line.trim_end().strip_prefix("---- ").is_some_and(|rest| rest.ends_with(" stdout ----"));
    let is_end = |line: &String| is_header(line) || line.trim_end() == "failures:";
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = verdict(line).map(|start| line[start..].trim_end().trim_end_matches(" ... FAILED")) else {
            continue;
        };
        let header = format!("---- {name} stdout ----");
        let said = match lines.iter().position(|line| line.trim_end() == header) {
            Some(begin) => {
                let rest = &lines[begin + 1..];
                &rest[..rest.iter().position(is_end).unwrap_or(rest.len())]
            }
            None => &lines[at.saturating_sub(LINES_MAX)..at],
        };
        found.push((name, said));
    }
    found
}

/// What is shown at the end of a guest that is red: its failed tests, and the first lines of each; if no test has failed, its last lines.
pub(crate) fn digest(kernel: &str, lines: &[String]) -> String {
    let mut text = String::new();
    let mut show = |title: String, said: &[String]| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "\n{kernel}: {title}");
        for line in said.iter().take(LINES_MAX) {
            let _ = writeln!(text, "    {}", line.trim_end());
        }
        if said.len() > LINES_MAX {
            let _ = writeln!(text, "    ... and {} lines", said.len() - LINES_MAX);
        }
    };
    let found = failures(lines);
    for (name, said) in &found {
        show(format!("{name} failed:"), said);
    }
    if found.is_empty() {
        show("no test has failed; its last lines:".to_owned(), &lines[lines.len().saturating_sub(LINES_MAX)..]);
    }
    text
}
