//! The two children that open and parse the files of watched processes, as the kernel describes them.

use std::fs;
use std::io::BufReader;
use std::path::Path;

use macro_rules_attribute::apply;
use serde_json::Value;

use crate::harness::runs::{next_line, watch_test};
use crate::harness::{Scratch, Watching, child, die, named};

/// include/uapi/linux/capability.h: CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE
const OPENERS: u64 = 1 << 2 | 1 << 19 | 1 << 40;

/// A line of /proc/PID/status.
fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field}: {text}")).trim().replace('\t', " ")
}

#[apply(watch_test!)]
fn the_children_have_what_they_need_and_no_more() {
    let scratch = Scratch::new();
    let program = named(&scratch, "null-write", "confined-6b");
    let mut watching = Watching::start(&["-n", "confined-6b", "-t", "--format", "json"]);
    let mut stdout = BufReader::new(watching.child.stdout.take().unwrap());
    die(&program);
    let record: Value = serde_json::from_str(&next_line(&mut stdout)).unwrap();
    assert!(record["instruction_symbol"].as_str().unwrap().starts_with("write_field+"), "{record:#}");
    let (namer, opener) = (child(watching.child.id(), "fl-namer"), child(watching.child.id(), "fl-opener"));
    for (pid, capabilities) in [(namer, 0), (opener, OPENERS)] {
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(u64::from_str_radix(&status(pid, set), 16).unwrap(), capabilities, "{set} of {pid}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status(pid, set), "0000000000000000", "{set} of {pid}");
        }
        assert_eq!((status(pid, "Seccomp").as_str(), status(pid, "NoNewPrivs").as_str()), ("2", "1"));
    }
    let nobody_elses = ["2147418111"; 4].join(" ");
    assert_eq!(status(namer, "Uid"), nobody_elses);
    assert_eq!((status(namer, "Gid"), status(namer, "Groups").as_str()), (nobody_elses, ""));
    // No path leads out of there, and what is open is nobody's file.
    let root = fs::read_link(format!("/proc/{namer}/root")).unwrap();
    assert_eq!(root, Path::new(&format!("/proc/{namer}/fd")));
    for entry in fs::read_dir(format!("/proc/{namer}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        let target = target.to_str().unwrap();
        let is_ours = target.starts_with("socket:") || target.starts_with("/memfd:") || target == "/dev/null";
        assert!(is_ours, "{target}");
    }
    assert!(watching.stop("TERM").status.success());
}
