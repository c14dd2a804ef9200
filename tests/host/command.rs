//! `-- COMMAND`: its status, its signals, its end.

use std::io::Read;
use std::process::{Command, Output, Stdio};

use macro_rules_attribute::apply;

use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Watching};

fn crash(arguments: &[&str]) -> Output {
    Command::new(FAULTLINE).arg("crash").args(arguments).watch()
}

#[apply(watch_test!)]
fn the_commands_status_is_ours() {
    for (script, status) in [("exit 0", 0), ("exit 3", 3), ("kill -ABRT $$", 134)] {
        assert_eq!(crash(&["--", "sh", "-c", script]).status.code(), Some(status), "{script}");
    }
}

/// As a shell does.
#[apply(watch_test!)]
fn a_command_that_cannot_be_started_has_a_status_of_its_own() {
    for (command, status, why) in [
        ("./no-such-command", 127, "No such file or directory (os error 2)"),
        ("/", 126, "Permission denied (os error 13)"),
    ] {
        let output = crash(&["--", command]);
        assert_eq!(output.status.code(), Some(status));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.ends_with(&format!("faultline: failed to run `{command}`: {why}\n")), "{text}");
    }
}

#[apply(watch_test!)]
fn a_quiet_run_says_nothing() {
    let records = |flags: &[&str]| {
        let output = crash(&[flags, &["--", "sh", "-c", "sleep 5 >/dev/null 2>&1 & kill -SEGV $$"]].concat());
        assert_eq!(output.status.code(), Some(139));
        (String::from_utf8(output.stdout).unwrap().lines().count(), String::from_utf8(output.stderr).unwrap())
    };
    let (lines, said) = records(&["-q"]);
    assert!(lines > 5 && said.is_empty(), "{said}");
    let (_, said) = records(&[]);
    assert!(said.contains("watching") && said.contains("1 descendant of the command"), "{said}");
}

/// Of several processes the last one ends it.
#[apply(watch_test!)]
fn a_run_ends_with_the_processes_that_it_watches() {
    for arguments in [&["crash"][..], &["signal", "-a"], &["pagefault"], &["call", "munmap"]] {
        let child = || Command::new("sh").args(["-c", "read go; kill -SEGV $$"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut children = [child(), child()];
        let pids = children.each_ref().map(|child| child.id().to_string());
        let flags = ["-p", &pids[0], "-p", &pids[1], "-d", "60", "--format", "json"];
        let mut faultline = Command::new(FAULTLINE);
        faultline.args(arguments).args(flags);
        let (mut watching, line) = Watching::try_start(&mut faultline);
        assert!(line.starts_with("faultline: watching "), "{line}");
        let begun = std::time::Instant::now();
        for child in &mut children {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        let output = watching.end();
        assert!(begun.elapsed().as_secs() < 30, "{arguments:?} went on after they had ended");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        for pid in pids.iter().filter(|_| arguments[0] != "pagefault") {
            assert!(text.contains(&format!("\"pid\":{pid},")), "{arguments:?} lacks {pid}: {text}");
        }
    }
}

#[apply(watch_test!)]
fn a_signal_is_handed_on_to_the_command() {
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = Command::new(FAULTLINE)
        .args(["crash", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[apply(watch_test!)]
fn an_ignored_sigchld_is_no_reason_to_wait_for_ever() {
    let script = "trap '' CHLD; exec timeout 60 \"$0\" crash -- sh -c 'exit 5'";
    let output = Command::new("sh").args(["-c", script, FAULTLINE]).watch();
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Its number there is not the host's.
#[apply(watch_test!)]
fn a_command_in_a_pid_namespace_of_its_own_is_watched() {
    let output = Command::new("unshare")
        .args(["-p", "-f", "--mount-proc", FAULTLINE, "crash", "-v", "--format", "json", "--"])
        .args(["sh", "-c", "sh -c 'kill -SEGV $$'; exit 0"])
        .watch();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(0), 1), "{text}");
}
