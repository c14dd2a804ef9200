//! The fields that are null without privileges, and the line that reports it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::capabilities::with_capabilities;
use crate::harness::runs::{Watch, watch_test};
use crate::harness::{FAULTLINE, Scratch, Watching, copy_program, die, named, records};
use crate::refused::refuse;

#[apply(watch_test!)]
fn a_third_one_shows_containers() {
    let (record, text) = with_capabilities("+bpf,+perfmon,+sys_ptrace");
    assert_eq!(record["signal"], "SIGSEGV");
    assert!(text.contains("faultline: without CAP_DAC_READ_SEARCH, symbols of files "), "{text}");
    let (_, text) = with_capabilities("+bpf,+perfmon,+sys_ptrace,+dac_read_search");
    assert!(!text.contains("are null"), "{text}");
}

/// A program that only its owner may read: its symbols are null, and all fields from the kernel are there.
#[apply(watch_test!)]
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
    let output = watching.stop_after("crash", 1, "TERM");
    let records = records(&output.stdout);
    assert_eq!(records.len(), 1, "{records:#?}");
    let record = &records[0];
    assert_eq!(record["fault_address"], "0x18");
    assert!(record["instruction_symbol"].is_null() && record["stack_trace"][0]["symbol"].is_null(), "{record:#}");
    assert!(record["build_id"].is_string() && record["stack_trace"][0]["offset"].is_string(), "{record:#}");
}

/// As in a container whose profile knows no CAP_BPF: that of podman on Debian 12.
#[apply(watch_test!)]
fn a_seccomp_filter_that_refuses_bpf_is_named_with_its_cure() {
    let faultline = |arguments: &[&str], errno| {
        let mut faultline = Command::new(FAULTLINE);
        refuse(faultline.args(arguments), libc::SYS_bpf, None, errno).watch()
    };
    for errno in [libc::EPERM, libc::ENOSYS] {
        let crash = faultline(&["crash", "--", "true"], errno);
        let said = String::from_utf8_lossy(&crash.stderr);
        assert!(said.contains("a seccomp filter refuses bpf(2): give this container a profile"), "{said}");
        assert_eq!(crash.status.code(), Some(2), "{said}");
        let doctor = faultline(&["doctor", "--format", "json"], errno);
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        let check =
            |name: &str| report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        assert_eq!((&report["crash"], &check("seccomp")["status"]), (&"no".into(), &"no".into()), "{report:#}");
        assert!(check("seccomp")["cure"].as_str().unwrap().contains("seccomp=unconfined"), "{report:#}");
        for untried in ["raw_tp", "ring_buffer"] {
            assert_eq!(check(untried)["status"], "unknown", "{report:#}");
        }
    }
}

/// As dist/faultline.service runs it: with its capabilities, with folders of its own in place of /tmp and the homes, a /proc of what it
/// can trace, and without openat2(2). A program in /tmp has its names all the same, from its process's or its parent's view of the files.
#[apply(watch_test!)]
fn what_the_unit_hides_is_named_all_the_same() {
    const NAMES: &str = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search";
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dist/faultline.service")).unwrap();
    for line in
        ["PrivateTmp=yes", "ProtectHome=yes", "ProtectProc=ptraceable", "RestrictSUIDSGID=yes", "User=faultline"]
    {
        assert!(unit.lines().any(|given| given == line), "{line}");
    }
    let folder = std::env::temp_dir().join(format!("faultline-unit-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let program = folder.join("unit-view-8d");
    copy_program("null-write", &program);
    let script = format!(
        "mount -t tmpfs none /tmp && mount -t tmpfs none /home && mount -t proc -o hidepid=ptraceable none /proc || exit 9
         ulimit -l unlimited 2>/dev/null; exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
         --inh-caps={NAMES} --ambient-caps={NAMES} --bounding-set={NAMES} \"$0\" crash -t -n unit-view-8d --format json"
    );
    let mut faultline = Command::new("unshare");
    faultline.args(["--mount", "--propagation", "private", "sh", "-c", &script, FAULTLINE]);
    // systemd refuses all of openat2(2) to a unit with RestrictSUIDSGID=yes.
    refuse(&mut faultline, libc::SYS_openat2, None, libc::EPERM);
    let (watching, line) = Watching::try_start(&mut faultline);
    assert!(line.starts_with("faultline: watching "), "{line}");
    die(&program);
    let output = watching.stop_after("crash", 1, "TERM");
    fs::remove_dir_all(&folder).unwrap();
    let records = records(&output.stdout);
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(records[0]["exe"], program.to_str().unwrap());
    let symbol = records[0]["stack_trace"][0]["symbol"].as_str().unwrap();
    assert!(symbol.starts_with("write_field+"), "{symbol}");
}
