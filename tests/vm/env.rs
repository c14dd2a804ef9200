//! What the other tests rely on: if one of these fails, the others mean nothing.

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::harness::runs::{AGAIN_MAX, Shared, note, with_all_runs};

#[test]
fn we_are_root() {
    assert!(nix::unistd::geteuid().is_root(), "the tests load programs into the kernel: run them as root");
}

#[test]
fn the_kernel_has_btf() {
    assert!(Path::new("/sys/kernel/btf/vmlinux").exists());
}

/// In a guest the harness says which kernel it meant to boot; a guest with another kernel proves nothing.
#[test]
fn the_kernel_is_the_one_that_was_asked_for() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if let Ok(wanted) = std::env::var("FAULTLINE_KERNEL") {
        assert!(release.starts_with(&format!("{wanted}.")), "meant to be {wanted}, but it is {release}");
        assert_eq!(crate::attach::is_real_time(), std::env::var_os("FAULTLINE_REAL_TIME").is_some(), "{release}");
    }
}

/// How often a test is run that fails so often and reads this of faultline each time; and whether it passes.
fn runs_of(failures: u32, said: &str) -> (u32, bool) {
    let runs = Cell::new(0);
    let test = || {
        runs.set(runs.get() + 1);
        note(said.as_bytes());
        assert!(runs.get() > failures, "as often as was asked for");
    };
    let passed = catch_unwind(AssertUnwindSafe(|| with_all_runs(test))).is_ok();
    (runs.get(), passed)
}

#[test]
fn a_test_that_fails_is_run_once_more_only_if_runs_were_missed() {
    let none = "lost: sample_ring_full 2, runs_missed 0, forks_missed 0";
    let one = "{\"losses\":{\"runs_missed\":1}}";
    assert_eq!((runs_of(0, one), runs_of(1, none)), ((1, true), (1, false)));
    assert_eq!((runs_of(2, one), runs_of(1, "forks_missed 12,")), ((3, true), (2, true)));
    let metric = "faultline_events_dropped_total{stage=\"sample\",reason=\"runs_missed\"} ";
    assert_eq!((runs_of(1, &format!("{metric}0\n")), runs_of(1, &format!("{metric}1\n"))), ((1, false), (2, true)));
    assert_eq!(runs_of(99, one), (AGAIN_MAX + 1, false));
}

#[test]
fn what_is_shared_is_made_anew_for_a_test_that_is_run_once_more() {
    let shared = Shared::new();
    let made = Cell::new(0);
    let make = || {
        made.set(made.get() + 1);
        note(if made.get() == 1 { b"runs_missed 1" } else { b"runs_missed 0" });
        made.get()
    };
    // One test has made it, and what it lacks is missing in the other one as well.
    with_all_runs(|| assert_eq!(*shared.get(make), 1));
    with_all_runs(|| assert_eq!(*shared.get(make), 2));
    with_all_runs(|| assert_eq!(*shared.get(make), 1));
    assert_eq!(made.get(), 2);
}

#[test]
fn every_test_that_watches_is_a_watch_test() {
    for folder in ["tests/vm", "tests/host"] {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("env.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let of_its_own = text.matches("#[test]").count() - usize::from(path.ends_with("runs.rs"));
            assert_eq!(of_its_own, 0, "{}: #[apply(watch_test!)] instead of #[test]: tests/vm/runs.rs", path.display());
        }
    }
}
