//! What the other tests rely on: if one of these fails, the others mean nothing.

use std::fs;
use std::path::Path;

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
    }
}
