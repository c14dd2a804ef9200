//! The output of records: files, pipes, full disks, text.

use std::fs;
use std::io::Read;
use std::process::{Command, Output, Stdio};

use macro_rules_attribute::apply;
use nix::pty::{Winsize, openpty};

use crate::harness::runs::{Watch, note, watch_test};
use crate::harness::{FAULTLINE, Scratch, Watching, copy_program, counted, die, named, programs, run};

fn crash(arguments: &[&str]) -> Output {
    Command::new(FAULTLINE).arg("crash").args(arguments).watch()
}

fn program(name: &str) -> String {
    programs().join(name).to_str().unwrap().to_owned()
}

#[apply(watch_test!)]
fn a_duration_ends_the_run() {
    let output = crash(&["-d", "0.3", "-n", "no-such-name"]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(counted(&output.stderr, " signals matched"), 0);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains(
            "lost: sample_ring_full 0, stack_page_ring_full 0, sample_budget 0, stack_table_full 0, watch_table_full 0, fault_table_full 0, \
             runs_missed 0, exits_missed 0, forks_missed 0"
        ),
        "zeros are shown: {text}"
    );
}

#[apply(watch_test!)]
fn parts_that_were_not_asked_for_are_null() {
    let program = programs().join("null-write");
    let plain = &run(&program, &["--brief"]).records[0];
    assert!(plain["registers"].is_null() && plain["stack_trace"].is_null() && plain["unwinder"].is_null());
    let deep = &run(&program, &[]).records[0];
    assert_eq!(
        deep["stack_trace"].as_array().map(Vec::len),
        run(&program, &["-t"]).records[0]["stack_trace"].as_array().map(Vec::len)
    );
    assert!(deep["registers"].is_null());
    assert_eq!((&deep["unwinder"], &deep["stack_complete"]), (&"eh_frame".into(), &true.into()));
    let kernels = &run(&program, &["-t", "--stack-bytes", "0"]).records[0];
    assert_eq!(kernels["unwinder"], "frame_pointer");
    assert_eq!(
        kernels["stack_trace"][1]["symbol"], deep["stack_trace"][1]["symbol"],
        "where there are frame pointers they lead to the same"
    );
    let shallow = &run(&program, &["-t", "--max-stack-depth", "2"]).records[0];
    assert_eq!(shallow["stack_trace"].as_array().unwrap().len(), 2);
    assert_eq!(shallow["signature"], plain["signature"], "the signature doesn't depend on what is shown");
    assert_eq!(shallow["signature"], deep["signature"]);
}

#[apply(watch_test!)]
fn text_has_the_lines_that_scripts_look_for() {
    let output = crash(&["-r", "--", &program("null-write")]);
    assert_eq!(output.status.code(), Some(139));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('[')).collect();
    assert!(lines[0].contains("] SEGFAULT in process null-write (PID: "), "{text}");
    assert_eq!(lines[1], "  Fault Address: 0x18");
    assert!(lines[2].starts_with("  Instruction:   0x") && lines[2].contains(" (write_field+0x"), "{text}");
    assert_eq!(lines[3], "  Fault Type:    Address not mapped (SEGV_MAPERR)");
    for heading in ["  Memory Mapping:", "  Registers:", "  Stack Trace:"] {
        assert!(lines.contains(&heading), "{text}");
    }
}

#[apply(watch_test!)]
fn a_brief_text_is_one_line_a_crash() {
    let output = crash(&["--brief", "--", "sh", "-c", &format!("{0}; {0}; true", program("null-write"))]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in lines {
        let (head, cause) = line.split_once(") at write_field+0x").unwrap_or_else(|| panic!("{text}"));
        assert!(head.contains("] SEGFAULT in process null-write (PID: "), "{text}");
        assert!(cause.contains(": writes address 0x18: near NULL") && cause.ends_with(']'), "{text}");
    }
    assert!(!text.contains("Stack Trace"), "{text}");
}

/// What a run writes to a terminal of so many columns.
fn on_terminal(columns: u16, no_color: &str, arguments: &[&str]) -> String {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let mut child = Command::new(FAULTLINE)
        .args(arguments)
        .env("NO_COLOR", no_color)
        .env("TERM", "xterm")
        .stdout(pty.slave)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What reads a terminal that nobody has open any more gets an error.
    let (mut shown, mut terminal) = (Vec::new(), fs::File::from(pty.master));
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = terminal.read(&mut bytes) {
        shown.extend_from_slice(&bytes[..read]);
    }
    let mut said = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut said).unwrap();
    child.wait().unwrap();
    note(&said);
    String::from_utf8(shown).unwrap().replace('\r', "")
}

#[apply(watch_test!)]
fn a_record_fits_the_terminal() {
    let scratch = Scratch::new();
    let folder = scratch.path("a-folder-whose-name-is-as-long-as-those-of-build-systems-like-to-be");
    fs::create_dir(&folder).unwrap();
    let far = folder.join("null-write");
    copy_program("null-write", &far);
    let arguments = ["-r", "--max-stack-depth", "127", "--", far.to_str().unwrap()];
    let on_terminal = |columns, no_color, more: &[&str]| {
        on_terminal(columns, no_color, &[&["crash", "-q"], more, &arguments].concat())
    };
    for columns in [80, 400] {
        let text = on_terminal(columns, "1", &[]);
        let record: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('[')).collect();
        assert!(record.len() > 20, "{text}");
        for line in &record {
            assert!(line.chars().count() <= usize::from(columns) && !line.contains('\x1b'), "{columns}: {line}");
        }
        // 400: the path of the sources of the tests is in it.
        let is_cut = record.iter().any(|line| line.starts_with("    #0  0x") && line.contains(" (…/"));
        assert_eq!(is_cut, columns == 80, "{text}");
        // 2024-02-15 10:30:45 UTC
        let time = record[0].trim_start_matches('[').split_once(']').unwrap().0;
        assert!(time.len() > 20 && time.as_bytes()[19] == b' ', "{time}");
    }
    let colored = on_terminal(80, "", &[]);
    assert!(colored.contains("\x1b[1;31m[") && colored.contains("Diagnosis:     \x1b[1;33mwrites"), "{colored}");
    assert!(!on_terminal(80, "", &["--color", "never"]).contains('\x1b'));
    let piped = |color: &str| crash(&[&["--color", color], &arguments[..]].concat()).stdout;
    assert!(piped("always").contains(&0x1b) && !piped("auto").contains(&0x1b));
    let piped = String::from_utf8(piped("auto")).unwrap();
    assert!(piped.contains(far.to_str().unwrap()) && !piped.contains('…'), "a pipe gets all: {piped}");
}

#[apply(watch_test!)]
fn what_the_other_commands_show_fits_too() {
    let scratch = Scratch::new();
    let folder = scratch.path("a-folder-whose-name-is-as-long-as-those-of-build-systems-like-to-be");
    fs::create_dir(&folder).unwrap();
    let far = folder.join("null-write");
    copy_program("null-write", &far);
    let far = far.to_str().unwrap();
    for (arguments, shown) in [
        (&["memory", "-q"][..], "…/null-write"),
        (&["pagefault", "-q", "--by", "file"], "…/null-write"),
        (&["pagefault", "-q"], "PROCESS"),
        (&["signal", "-q", "--processes"], "…/null-write"),
    ] {
        let of = |columns| on_terminal(columns, "1", &[arguments, &["--", far]].concat());
        let text = of(80);
        let too_long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(too_long.is_empty() && text.contains(shown), "{arguments:?}: {text}");
        let wide = of(400);
        assert!(!wide.contains('…') && (wide.contains(far) || shown == "PROCESS"), "{arguments:?}: {wide}");
    }
}

#[apply(watch_test!)]
fn a_file_is_written_anew_or_added_to() {
    let scratch = Scratch::new();
    let file = scratch.path("records");
    let path = file.to_str().unwrap();
    let program = program("null-write");
    fs::write(&file, "old\n").unwrap();
    crash(&["--format", "json", "-o", path, "--append", "--", &program]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("old\n{\"type\":\"crash\"") && text.lines().count() == 2, "{text}");
    crash(&["--format", "json", "-o", path, "--", &program]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("{\"type\":\"crash\"") && text.lines().count() == 1, "{text}");
}

#[apply(watch_test!)]
fn a_full_disk_is_said() {
    let output = crash(&["-o", "/dev/full", "--", &program("null-write")]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.ends_with("faultline: failed to write `/dev/full`: No space left on device (os error 28)\n"),
        "{text}"
    );
}

#[apply(watch_test!)]
fn a_closed_pipe_ends_it_quietly() {
    let scratch = Scratch::new();
    let program = named(&scratch, "null-write", "closed-5d");
    let mut watching = Watching::start(&["-n", "closed-5d"]);
    drop(watching.child.stdout.take());
    die(&program);
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    watching.stderr.read_to_string(&mut rest).unwrap();
    note(rest.as_bytes());
    assert_eq!(rest, "");
}
