//! A file system of a test's own.

use std::path::Path;
use std::process::Command;

/// Takes away what is mounted there, also where a test fails.
pub(crate) struct Unmount<'a>(pub &'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0).status();
    }
}
