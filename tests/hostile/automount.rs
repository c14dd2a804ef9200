//! A path of a container's means nothing on the host: whoever looks for it there must have nothing mounted because of it, as an attacker
//! could name a server of his (`/net/SERVER/...`), which only the host would mount.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{getpgrp, pipe};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::harness::{FAULTLINE, Scratch, copy_program, records};
use crate::refused::refuse;

/// A folder on which something is mounted as soon as anybody looks into it, but for this process and its children.
struct Trigger {
    folder: PathBuf,
    /// The kernel's requests to mount.
    requests: File,
}

impl Trigger {
    fn at(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        let (requests, kernels) = pipe().unwrap();
        let options = format!("fd={},pgrp={},minproto=5,maxproto=5,direct", kernels.as_raw_fd(), getpgrp());
        let options = CString::new(options).unwrap();
        mount("faultline-test", &folder, "autofs", MountFlags::empty(), options.as_c_str())
            .unwrap_or_else(|error| panic!("{error}: this test needs autofs"));
        fcntl(&requests, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        Self { folder, requests: requests.into() }
    }

    fn was_pulled(&mut self) -> bool {
        match self.requests.read(&mut [0; 512]) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
            Ok(bytes) => bytes > 0,
        }
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        // Whoever waits for the mount is told that there will be none.
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
    }
}

/// How the kernel is asked for what lies at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Openat2,
    /// As in the unit: part by part.
    WithoutOpenat2,
}

/// A program that dies in mounts of its own, which `script` prepares in `folder`. On the host, nothing may be mounted there because of it.
fn mounts_nothing(way: Way, name: &str, script: impl Fn(&str) -> (String, String)) {
    let scratch = Scratch::new();
    let mut trigger = Trigger::at(scratch.path("net"));
    let folder = trigger.folder.display().to_string();
    let (program, script) = script(&folder);
    let original = scratch.path("original");
    copy_program("null-write", &original);
    let script = format!("original={}; mount -t tmpfs none {folder} && {script}", original.display());
    let mut faultline = Command::new(FAULTLINE);
    if way == Way::WithoutOpenat2 {
        refuse(&mut faultline, libc::SYS_openat2, None, libc::EPERM);
    }
    faultline.args(["crash", "-t", "--format", "json", "-n", name, "--", "unshare", "-m", "sh", "-c", &script]);
    let output = faultline.stderr(Stdio::null()).output().unwrap();
    let all = records(&output.stdout);
    let [record] = &all[..] else { panic!("{all:#?}") };
    assert_eq!(record["exe"], program, "{record:#}");
    assert!(!trigger.was_pulled(), "something was to be mounted: {record:#}");
    // Whoever is no child of this one's pulls it.
    let mut looked =
        Command::new("setsid").args(["ls", &folder]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while !trigger.was_pulled() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "nothing pulls it");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(trigger);
    let _ = looked.kill();
    let _ = looked.wait();
}

#[test]
fn a_path_of_a_containers_mounts_nothing_on_the_host() {
    for (way, name) in [(Way::Openat2, "automount-5c"), (Way::WithoutOpenat2, "automount-5d")] {
        mounts_nothing(way, name, |folder| {
            (format!("{folder}/{name}"), format!("cp $original {folder}/{name}; exec {folder}/{name}"))
        });
    }
}

/// The layers of an overlay are names as well. They are looked through for a file that not everybody may read, where the layers are not all in
/// one file system, so that stat(2) shows another device than the kernel.
#[test]
fn a_layer_of_a_containers_mounts_nothing_on_the_host() {
    let name = "automount-layer";
    mounts_nothing(Way::Openat2, name, |folder| {
        let (layer, merged) = (format!("{folder}/server/layer"), format!("{folder}/merged"));
        let script = format!(
            "mkdir -p {layer} {merged} && cp $original {layer}/{name} && chmod 0711 {layer}/{name} && \
             mount -t overlay -o lowerdir={layer}:/usr/share none {merged} && (sleep 5 >/dev/null 2>&1 & \
             {merged}/{name}; true)"
        );
        // Somebody lives on in its mounts, so that they can be looked into.
        (format!("{merged}/{name}"), script)
    });
}
