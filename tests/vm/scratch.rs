//! A folder for one test's files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::copy_executable;

/// A folder for one test's files, on a tmpfs where there is one: in a guest `/tmp` is the host's. Deleted when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::below(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" })
    }

    /// The same in this folder.
    pub(crate) fn below(parent: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("faultline-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(parent).join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A shell script of this name, to be executed.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let (text_path, path) = (self.path(&format!("{name}.text")), self.path(name));
        fs::write(&text_path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&text_path, fs::Permissions::from_mode(0o755)).unwrap();
        copy_executable(&text_path, &path);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
