//! The fields that are null without privileges, and the line that reports it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::harness::{FAULTLINE, Scratch, Watching, die, named, records};

/// `faultline crash` as nobody, with these capabilities only, on a process that kills itself.
fn with_capabilities(names: &str) -> (Value, String) {
    // Before v5.11 a program's memory counts against RLIMIT_MEMLOCK. If the limit can't be raised, it need not be.
    let script = format!(
        "ulimit -l unlimited 2>/dev/null; exec setpriv --reuid=65534 --regid=65534 --clear-groups \
         --inh-caps=-all,{names} --ambient-caps=-all,{names} --bounding-set=-all,{names} \
         \"$0\" crash -r -t --format json -- sh -c 'kill -SEGV $$'"
    );
    let output = Command::new("sh").args(["-c", &script, FAULTLINE]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(139), "{text}");
    let records = records(&output.stdout);
    assert_eq!(records.len(), 1);
    (records[0].clone(), text)
}

#[test]
fn a_third_one_shows_containers() {
    let (record, text) = with_capabilities("+bpf,+perfmon,+sys_ptrace");
    assert_eq!(record["signal"], "SIGSEGV");
    assert!(text.contains("faultline: without CAP_DAC_READ_SEARCH, symbols of files "), "{text}");
    let (_, text) = with_capabilities("+bpf,+perfmon,+sys_ptrace,+dac_read_search");
    assert!(!text.contains("are null"), "{text}");
}

/// A program that only its owner may read: its symbols are null, and all fields from the kernel are there.
#[test]
fn what_may_not_be_read_is_null() {
    let scratch = Scratch::new();
    let program = named(&scratch, "null-write", "unreadable-5c");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let mut faultline = Command::new("setpriv");
    faultline.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    for caps in ["--inh-caps=-all,+bpf,+perfmon", "--ambient-caps=-all,+bpf,+perfmon"] {
        faultline.arg(caps);
    }
    faultline.args([FAULTLINE, "crash", "-t", "-n", "unreadable-5c", "--format", "json"]);
    // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe.
    unsafe {
        faultline.pre_exec(|| {
            let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited);
            Ok(())
        })
    };
    let (watching, line) = Watching::try_start(&mut faultline);
    assert!(line.starts_with("faultline: watching "), "{line}");
    die(&program);
    let output = watching.stop("TERM");
    let records = records(&output.stdout);
    assert_eq!(records.len(), 1, "{records:#?}");
    let record = &records[0];
    assert_eq!(record["fault_address"], "0x18");
    assert!(record["instruction_symbol"].is_null() && record["stack_trace"][0]["symbol"].is_null(), "{record:#}");
    assert!(record["build_id"].is_string() && record["stack_trace"][0]["offset"].is_string(), "{record:#}");
}
