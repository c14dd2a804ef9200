//! `-- COMMAND`: its status, its signals, its end.

use std::io::Read;
use std::process::{Command, Output, Stdio};

use macro_rules_attribute::apply;

use crate::harness::FAULTLINE;
use crate::harness::runs::{Watch, watch_test};

fn crash(arguments: &[&str]) -> Output {
    Command::new(FAULTLINE).arg("crash").args(arguments).watch()
}

#[apply(watch_test!)]
fn the_commands_status_is_ours() {
    for (script, status) in [("exit 0", 0), ("exit 3", 3), ("kill -ABRT $$", 134)] {
        assert_eq!(crash(&["--", "sh", "-c", script]).status.code(), Some(status), "{script}");
    }
    let missing = crash(&["--", "./no-such-command"]);
    assert_eq!(missing.status.code(), Some(2));
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(
        text.ends_with("faultline: failed to run `./no-such-command`: No such file or directory (os error 2)\n"),
        "{text}"
    );
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
