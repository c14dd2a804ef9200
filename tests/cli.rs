//! Wrong command lines and their error messages. No root, no kernel: no test here gets as far as loading a program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

fn faultline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_faultline")).args(arguments).output().unwrap()
}

/// The one line on standard error with which a command line is refused.
fn refusal(arguments: &[&str]) -> String {
    let output = faultline(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty(), "standard output carries records and nothing else");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("faultline: "), "{text}");
    text
}

#[test]
fn nothing_typed_is_told_the_commands() {
    let output = faultline(&[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
    assert!(text.contains("\n  crash ") && text.contains("--help") && !text.contains("generate"), "{text}");
}

#[test]
fn help_and_version_are_no_errors() {
    for (arguments, word) in [
        (&["--help"][..], "crash"),
        (&["crash", "--help"], "--process-name"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["--version"], "\ncommit: "),
        (&["-V"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = faultline(arguments);
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(word), "{arguments:?}");
    }
}

#[test]
fn an_unknown_signal_is_named() {
    let text = refusal(&["crash", "--signal", "SIGFOO"]);
    assert!(text.contains("SIGFOO") && text.contains("kill -l"), "{text}");
}

#[test]
fn signals_are_chosen_in_the_same_way_everywhere() {
    for command in [&["crash"][..], &["signal"], &["call", "munmap"], &["agent"]] {
        for signals in
            [&["--signal", "SIGTERM"][..], &["--signal=term", "--signal", "9"], &["--signal", "15,SIGRTMIN+3"]]
        {
            let text = refusal(&[command, signals, &["-p", "4294967295"]].concat());
            assert_eq!(text, "faultline: failed to watch PID 4294967295: no such process\n", "{command:?} {signals:?}");
        }
        let text = refusal(&[command, &["--signal", "SIGFOO"]].concat());
        assert!(text.contains("`SIGFOO`") || text.contains("'SIGFOO'"), "{text}");
        assert!(text.contains("--signal") && text.contains("kill -l"), "{text}");
    }
    for alias in [&["-s", "USR1"][..], &["-sUSR1,usr2"], &["--signals", "USR1", "--signal", "9"]] {
        let text = refusal(&[&["signal"], alias, &["-p", "4294967295"]].concat());
        assert!(text.contains("no such process"), "{alias:?}: {text}");
    }
    assert!(refusal(&["signal", "--all-signals", "--signal", "9"]).contains("--signal"));
}

#[test]
fn a_stack_depth_has_limits() {
    for depth in ["0", "128", "200", "-1", "x"] {
        let text = refusal(&["crash", &format!("--max-stack-depth={depth}")]);
        assert!(text.contains("--max-stack-depth"), "{text}");
    }
    assert!(refusal(&["crash", "--max-stack-depth", "200"]).contains("1..=127"));
}

#[test]
fn a_process_must_exist() {
    let text = refusal(&["crash", "-p", "4294967295"]);
    assert_eq!(text, "faultline: failed to watch PID 4294967295: no such process\n");
}

#[test]
fn a_cgroup_must_be_one() {
    let text = refusal(&["crash", "--cgroup", "/nonexistent"]);
    assert!(text.contains("`/nonexistent`: No such file or directory"), "{text}");
    let text = refusal(&["crash", "--cgroup", "/proc"]);
    assert!(text.contains("not a folder of cgroup v2"), "{text}");
}

#[test]
fn an_output_must_be_writable() {
    let text = refusal(&["crash", "-o", "/nonexistent/records"]);
    assert!(text.starts_with("faultline: failed to open `/nonexistent/records`: No such file or directory"), "{text}");
    assert!(refusal(&["crash", "-o", "/proc"]).contains("Is a directory"));
}

#[test]
fn append_needs_a_file() {
    assert!(refusal(&["crash", "--append"]).contains("--output"));
}

#[test]
fn a_name_too_long_can_match_nothing() {
    let text = refusal(&["crash", "-n", "sixteen-bytes-xx"]);
    assert!(text.contains("15 bytes"), "{text}");
}

#[test]
fn a_duration_is_seconds_or_has_units() {
    for flags in [&["-d", "soon"][..], &["--summary", "10 parsecs"], &["--sample-interval=-1m"]] {
        let text = refusal(&[&["crash"], flags].concat());
        assert!(text.contains("is no time: give seconds, or numbers with units, as"), "{text}");
    }
    for flags in [&["-d", "1m"][..], &["-d", "0.5"], &["--summary", "10s"], &["--sample-interval", "1h30m"]] {
        let text = refusal(&[&["crash"], flags, &["-p", "4294967295"]].concat());
        assert!(text.contains("no such process"), "{flags:?}: {text}");
    }
}

#[test]
fn what_was_nearly_typed_is_told() {
    for (arguments, tip) in [
        (&["crash", "--regsters"][..], "a similar argument exists: '--registers'"),
        (&["crsh"], "a similar subcommand exists: 'crash'"),
        (&["crash", "./program"], "put -- before a COMMAND"),
        (&["crash", "--format", "jsn"], "a similar value exists: 'json'"),
        (&["--pid", "1", "crash"], "'crash --pid' exists"),
    ] {
        let text = refusal(arguments);
        assert!(text.contains(&format!("; {tip}")), "{text}");
    }
    let text = refusal(&["crash", "--zzz"]);
    assert!(!text.contains("-- --zzz") && !text.contains("COMMAND"), "that is a command: {text}");
    let text = refusal(&["crash", "-p", "nginx"]);
    assert!(text.contains("`nginx` is no PID: give a number, or a part of a name with -n"), "{text}");
}

#[test]
fn quiet_is_not_verbose() {
    assert!(refusal(&["crash", "-q", "-v"]).contains("--verbose"));
    let text = refusal(&["crash", "-q", "-p", "4294967295"]);
    assert_eq!(text, "faultline: failed to watch PID 4294967295: no such process\n", "an error is said");
}

#[test]
fn a_format_is_text_or_json() {
    let text = refusal(&["crash", "--format", "xml"]);
    assert!(text.contains("text") && text.contains("json"), "{text}");
}

#[test]
fn a_call_needs_a_function() {
    let text = refusal(&["call", "--", "true"]);
    assert!(text.contains("no function was named") && text.contains("--preset memory"), "{text}");
    assert!(refusal(&["call", ""]).contains("an empty name"), "as a shell's empty variable gives it");
    assert!(refusal(&["call", "vfs_["]).contains("no pattern"));
    let text = refusal(&["call", "--preset", "all"]);
    assert!(text.contains("memory") && text.contains("file") && text.contains("signal"), "{text}");
}

#[test]
fn a_trigger_of_calls_is_a_signal_or_a_result() {
    for (trigger, word) in [
        ("nothing", "FUNCTION=RESULT"),
        ("mmap=x", "-ENOMEM"),
        ("mmap=-ENOTHING", "`-ENOTHING`"),
        ("vfs_*=0", "name one"),
    ] {
        let text = refusal(&["call", "munmap", "--trigger", trigger]);
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn kept_calls_have_limits() {
    for (flag, value) in [("--calls", "0"), ("--calls", "65"), ("--tasks", "0"), ("--live", "0")] {
        assert!(refusal(&["call", "munmap", &format!("{flag}={value}")]).contains(flag), "{flag} {value}");
    }
}
