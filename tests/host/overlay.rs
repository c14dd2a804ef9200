//! Programs without a build id on overlay file systems, of which stat(2) shows another device than the kernel: their names are those of the
//! plain run.

use std::fs;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::compile::compile;
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, records};

/// Mounts an overlay whose lower layer, with the program in it, is on a file system of its own; then `then`, in the folder of all that.
fn below(scratch: &Scratch, then: &str) -> String {
    let folder = scratch.path("");
    format!(
        "set -e
cd {}
mkdir -p lower upper work merged
mount -t tmpfs lower lower
cp program lower/program
chmod 755 lower/program
mount -t overlay overlay -o lowerdir=$PWD/lower,upperdir=$PWD/upper,workdir=$PWD/work merged
{then}",
        folder.display()
    )
}

/// The names of the stack of the record that this command, which runs faultline, prints, or writes to the scratch's `records`.
fn names(scratch: &Scratch, command: &mut Command) -> Vec<String> {
    let output = command.watch();
    let written = fs::read_to_string(scratch.path("records")).unwrap_or_default();
    let text = String::from_utf8_lossy(&output.stdout) + &*written;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
    let records = records(lines.join("\n"));
    assert_eq!(records.len(), 1, "{text} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(records[0]["symbols_failed"], Value::Array(Vec::new()), "{:#}", records[0]);
    let frames = records[0]["stack_trace"].as_array().unwrap();
    frames.iter().map(|frame| frame["symbol"].as_str().unwrap_or("??").to_owned()).collect()
}

fn program(name: &str) -> (Scratch, Vec<String>) {
    let scratch = Scratch::new();
    let program = scratch.path("program");
    compile("../../programs/null-write.c", &program, &["-static", "-Wl,--build-id=none"]);
    let plain = names(&scratch, Command::new(FAULTLINE).args(["crash", "-t", "--format", "json", "--"]).arg(&program));
    assert!(plain.len() > 3 && plain[0].starts_with("write_field+"), "{name}: {plain:?}");
    (scratch, plain)
}

#[apply(watch_test!)]
fn an_overlay_of_two_file_systems_has_the_names_of_the_plain_run() {
    let (scratch, plain) = program("two");
    // The mounts are there until the record is.
    let then = "merged/program & wait; for i in $(seq 600); do [ -s records ] && exit 0; sleep 0.1; done; exit 1";
    let script = scratch.script("two", &below(&scratch, then));
    let mut command = Command::new(FAULTLINE);
    command.args(["crash", "-t", "--format", "json", "-n", "program", "--output"]).arg(scratch.path("records"));
    assert_eq!(names(&scratch, command.args(["--", "unshare", "-m"]).arg(script)), plain);
}

/// The process has mounts of its own, which are gone when it is dead; the root of its container remains on the host.
#[apply(watch_test!)]
fn a_container_that_ends_with_its_process_has_names() {
    let (scratch, plain) = program("gone");
    let container = "cd merged; mkdir old; pivot_root . old; exec /program";
    let then = format!("{FAULTLINE} crash -t --format json -n program -- unshare -m sh -ec '{container}'");
    let script = scratch.script("gone", &below(&scratch, &then));
    assert_eq!(names(&scratch, Command::new("unshare").arg("-m").arg(script)), plain);
}
