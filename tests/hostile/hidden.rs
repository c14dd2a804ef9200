//! What a process or a file is called hides nothing, and does nothing to a terminal.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::bounded::{Victim, run};
use crate::harness::{FAULTLINE, Scratch, programs, records};

/// Whoever looks at a process reads lines of /proc that have its name, which need not be UTF-8.
#[test]
fn a_name_that_is_no_text_hides_no_page() {
    let scratch = Scratch::new();
    let shell = scratch.path("x").with_file_name(OsStr::from_bytes(b"\xff\xfesh"));
    fs::copy("/bin/sh", &shell).unwrap();
    let script = format!("read line; exec {} 16", programs().join("memory-pages").display());
    let mut target =
        Command::new(&shell).args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let (pid, output) = (target.id().to_string(), scratch.path("records"));
    let mut command = Command::new(FAULTLINE);
    let mut victim =
        Victim::spawn(command.args(["memory", "--pages", "--format", "json", "--pid", &pid, "-o"]).arg(&output));
    let is_watched = victim.hears("faultline: watching ");
    target.stdin.take().unwrap().write_all(b"go\n").unwrap();
    target.wait().unwrap();
    assert!(is_watched, "{}", victim.said);
    let ended = victim.ended(Duration::from_secs(10));
    assert!(ended.status.success(), "{}", ended.said);
    let is_made = |record: &Value| record["type"] == "page" && record["trigger"] == "mprotect";
    let pages = records(fs::read_to_string(output).unwrap()).into_iter().filter(is_made).count();
    assert_eq!(pages, 16);
}

/// Standard error is a terminal's, too.
#[test]
fn the_name_of_a_file_does_nothing_to_a_terminal() {
    let ended = run(&["symbolize", "/nowhere/\x1b]0;title\x07\u{9b}31m\r"], Duration::from_secs(10));
    assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
    assert!(ended.said.contains("/nowhere/\\x1b]0;title\\x07\\x9b31m\\r"), "{:?}", ended.said);
}
