//! `faultline signal` as people read it.

use std::process::Command;

use crate::harness::FAULTLINE;

#[test]
fn text_has_the_lines_that_scripts_look_for() {
    let script = "sleep 60 & kill $!; wait $!; exit 0";
    let output = Command::new(FAULTLINE).args(["signal", "--processes", "--", "sh", "-c", script]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let line =
        |word: &str| text.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word}: {text}"));
    let signal = line("] SIGNAL: SIGTERM (15) [sh/");
    assert!(signal.contains("] -> [s"), "{signal}");
    assert_eq!((&signal[..1], &signal[3..4], &signal[9..10], &signal[13..14]), ("[", ":", ".", "]"), "[22:33:49.123]");
    assert!(line("] FORK: sh (pid=").contains(", ppid="), "{text}");
    assert!(line("] EXEC: sh (pid=").contains("/"), "{text}");
    assert!(line("] EXIT: s").contains(" SIGTERM"), "{text}");
}
