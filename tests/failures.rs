//! What the output of a guest says of the tests that failed there: `ci/vm` ends with it, so that the tail of its output is enough.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;

/// So many lines are shown of each failure.
const LINES_MAX: usize = 40;

/// Each failed test and what it said, in the order of the output. libtest repeats what a test has printed in a section of its own,
/// `---- NAME stdout ----`; what has none, as the look at the kernel's log, is shown with the lines before its verdict.
fn failures(lines: &[String]) -> Vec<(&str, &[String])> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(|line| format!("{line}\r\n")).collect()
    }

    const OUTPUT: &str = "running 3 tests
test env::we_are_root ... ok
once more: 1 runs were skippedtest call::a_call ... FAILED
test crash::a_death ... FAILED

failures:

---- call::a_call stdout ----

thread 'call::a_call' panicked at tests/vm/call.rs:1:1:
left: 1
---- crash::a_death stdout ----
it lives

failures:
    call::a_call
    crash::a_death

test result: FAILED. 1 passed; 2 failed
WARNING: at kernel/bpf
test dmesg::the_kernel_does_not_complain ... FAILED
";

    #[test]
    fn each_failed_test_is_shown_with_what_it_said() {
        let lines = lines(OUTPUT);
        let found = failures(&lines);
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["call::a_call", "crash::a_death", "dmesg::the_kernel_does_not_complain"]);
        let said: Vec<usize> = found.iter().map(|(_, said)| said.len()).collect();
        assert_eq!(said[..2], [3, 2]);
        let text = digest("6.1", &lines);
        assert!(text.contains("6.1: call::a_call failed:\n    \n    thread 'call::a_call' panicked at"), "{text}");
        assert!(text.contains("6.1: crash::a_death failed:\n    it lives\n    \n\n"), "{text}");
        assert!(text.trim_end().ends_with("WARNING: at kernel/bpf"), "{text}");
    }

    #[test]
    fn a_guest_that_says_nothing_more_is_shown_with_its_last_lines() {
        let many: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        let text = digest("7.2", &many);
        assert_eq!(text.lines().count(), 2 + LINES_MAX);
        assert!(text.starts_with("\n7.2: no test has failed") && text.ends_with("line 99\n"), "{text}");
    }
}
