//! The end of what `ci/vm` prints. Its own program, tests/matrix.rs, is started by hand, and has no tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "matrix/failures.rs"]
mod failures;

use failures::{LINES_MAX, digest, failures};

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
