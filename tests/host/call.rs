//! `faultline call` where the kernel makes no difference: many functions at once, and what can't be attached.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use faultline::internals::call::Function;
use macro_rules_attribute::apply;

use crate::harness::FAULTLINE;
use crate::harness::runs::{Watch, watch_test};
use crate::recorder::{Calls, plan_by, start, syscall, ways};

#[apply(watch_test!)]
fn twenty_functions_are_attached_at_once() {
    let calls = Calls::start();
    let names = [
        "mmap",
        "munmap",
        "mprotect",
        "mremap",
        "brk",
        "madvise",
        "truncate",
        "ftruncate",
        "fallocate",
        "openat",
        "close",
        "read",
        "write",
        "rt_sigaction",
        "kill",
        "tgkill",
        "unlinkat",
        "fsync",
        "msync",
        "mlock",
    ];
    let functions: Vec<Function> = names.iter().map(|name| syscall(name, 1)).collect();
    for (attach, how) in ways() {
        let plan = plan_by(attach, calls.pid(), functions.clone());
        let begin = Instant::now();
        let recorder = start(&plan);
        let took = begin.elapsed();
        let attached = recorder.attached().to_vec();
        let begin = Instant::now();
        drop(recorder);
        println!("{how:?}: 20 functions attached in {took:?}, detached in {:?}", begin.elapsed());
        assert!(attached.iter().all(|attached| attached.how == Some(how)), "{attached:#?}");
        assert!(took.as_secs() == 0, "{how:?}: {took:?}");
    }
}

#[apply(watch_test!)]
fn what_can_not_be_attached_is_an_error_with_its_reason() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(FAULTLINE).arg("call").args(arguments).args(["--", "true"]).watch();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["vfs_raed"]).contains("failed to find `vfs_raed`: did you mean vfs_read"));
    let text = refused(&["munmap", "--trigger", "mmmap=-ENOMEM"]);
    assert!(text.contains("failed to find the function of --trigger `mmmap`: did you mean mmap"), "{text}");
    let text = refused(&["do_truncate", "--attach", "tracepoint"]);
    assert!(text.starts_with("faultline: failed to attach to do_truncate ("), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    if !Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
        assert!(refused(&["munmap", "--attach", "kprobe"]).contains("this kernel has none (CONFIG_KPROBES)"));
    }
}
