//! Limits that a parent sets: on the size of files and of the stack, on the disk, and a user namespace.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bounded::Victim;
use crate::harness::{FAULTLINE, Scratch, counted, counted_as, named, records};
use crate::own_name::own_name;
use crate::unmount::Unmount;

const BOUND: Duration = Duration::from_secs(10);

fn run(program: &Path, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
}

/// faultline with these arguments, after these lines of a shell.
fn after(lines: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-ec", &format!("{lines}; exec \"$0\" \"$@\""), FAULTLINE]).args(arguments).stdout(Stdio::null());
    command
}

#[test]
fn a_limit_on_files_is_said_and_counted() {
    let scratch = Scratch::new();
    let name = own_name("limit-fs");
    let program = named(&scratch, "many-deaths", &name);
    let file = scratch.path("records");
    // In units of 512 bytes: 64 KiB.
    let arguments = ["crash", "--format", "json", "-n", &name, "-o", file.to_str().unwrap()];
    let mut victim = Victim::watching(&mut after("ulimit -f 128", &arguments));
    run(&program, &["200", "0"]);
    victim.hear("raise the limit on the size of files: ulimit -f unlimited: the run goes on");
    let ended = victim.end(Signal::SIGTERM, BOUND);
    assert_eq!(ended.status.code(), Some(2), "the last records are missing: {}", ended.said);
    let written = records(fs::read_to_string(&file).unwrap()).len() as u64;
    assert_eq!(written + counted_as(&ended.said, "write_failed"), counted(ended.said.as_bytes(), " records;"));
    assert!(written > 10 && written < 200);
    assert_eq!(ended.said.matches("the run goes on").count(), 1, "{}", ended.said);
}

/// The dump of a process's pages is larger than a file may be.
#[test]
fn a_limit_on_files_ends_no_dump() {
    let scratch = Scratch::new();
    let name = own_name("limit-du");
    let program = named(&scratch, "memory-pages", &name);
    let folder = scratch.path("dump");
    let arguments = ["memory", "-n", &name, "-o", "/dev/null", "--dump", folder.to_str().unwrap()];
    let mut victim = Victim::watching(&mut after("ulimit -f 512", &arguments));
    run(&program, &["1600"]);
    victim.hear("ulimit -f unlimited");
    let ended = victim.end(Signal::SIGTERM, BOUND);
    assert!(ended.status.success() && counted_as(&ended.said, "write_failed") > 0, "{}", ended.said);
    records(fs::read_to_string(folder.join("pages.jsonl")).unwrap());
}

#[test]
fn a_full_disk_is_counted_and_ends_nothing() {
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    fs::create_dir(&disk).unwrap();
    run(Path::new("mount"), &["-t", "tmpfs", "-o", "size=64k,mode=0755", "none", disk.to_str().unwrap()]);
    let unmount = Unmount(&disk);
    let name = own_name("limit-di");
    let program = named(&scratch, "many-deaths", &name);
    let file = disk.join("records");
    let arguments = ["crash", "--format", "json", "-n", &name, "-o", file.to_str().unwrap()];
    let mut victim = Victim::watching(Command::new(FAULTLINE).args(arguments).stdout(Stdio::null()));
    run(&program, &["200", "0"]);
    victim.hear("No space left on device (os error 28): the run goes on");
    run(Path::new("mount"), &["-o", "remount,size=8m", disk.to_str().unwrap()]);
    run(&program, &["3", "0"]);
    victim.hear("records are written again");
    let ended = victim.end(Signal::SIGTERM, BOUND);
    assert!(ended.status.success(), "{}", ended.said);
    let written = records(fs::read_to_string(&file).unwrap()).len() as u64;
    assert!(counted_as(&ended.said, "write_failed") > 0, "{}", ended.said);
    assert_eq!(written + counted_as(&ended.said, "write_failed"), counted(ended.said.as_bytes(), " records;"));
    drop(unmount);
}

#[test]
fn a_small_stack_is_enough() {
    let scratch = Scratch::new();
    let name = own_name("limit-st");
    let program = named(&scratch, "null-write", &name);
    let file = scratch.path("records");
    let arguments =
        ["crash", "-r", "-t", "--format", "json", "-o", file.to_str().unwrap(), "--", program.to_str().unwrap()];
    let ended = Victim::spawn(&mut after("ulimit -s 64", &arguments)).ended(BOUND);
    assert_eq!(ended.status.code(), Some(139), "{}", ended.said);
    let all = records(fs::read_to_string(&file).unwrap());
    assert_eq!((all.len(), &all[0]["stack_trace"][0]["symbol"].is_string()), (1, &true), "{all:#?}");
    // Signals are taken as events there as well.
    let victim = Victim::watching(&mut after("ulimit -s 64", &["crash", "-n", "no-such-name", "-o", "/dev/null"]));
    let ended = victim.end(Signal::SIGTERM, Duration::from_secs(2));
    assert!(ended.status.success() && ended.said.contains("0 signals matched"), "{}", ended.said);
}

#[test]
fn in_a_user_namespace_the_cure_is_another() {
    let run = |arguments: &[&str]| Command::new("unshare").args(["-Ur", FAULTLINE]).args(arguments).output().unwrap();
    let crash = run(&["crash", "-d", "0.1"]);
    let said = String::from_utf8_lossy(&crash.stderr).into_owned();
    assert_eq!((crash.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(
        said.contains("needs CAP_BPF and CAP_PERFMON of the host, which root doesn't have in a user namespace"),
        "{said}"
    );
    let report: serde_json::Value = serde_json::from_slice(&run(&["doctor", "--format", "json"]).stdout).unwrap();
    let check = &report["checks"][0];
    assert_eq!((&check["name"], &check["status"]), (&"CAP_BPF".into(), &"no".into()), "{check:#}");
    assert_eq!(check["detail"], "held in this user namespace only");
    assert!(check["cure"].as_str().unwrap().contains("in a user namespace"), "{check:#}");
}
