//! Finds the path of a cgroup by its number.

use std::fs;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::PathBuf;

use crate::host;

/// How many folders are looked through.
const FOLDERS_MAX: usize = 10_000;

/// The path of the cgroup v2 folder with this inode number, `/` for the root; `None` means that it is gone, or that there are too many.
pub(crate) fn path(inode: u64) -> Option<String> {
    let root = PathBuf::from(host::cgroup2()?);
    if fs::metadata(&root).is_ok_and(|metadata| metadata.ino() == inode) {
        return Some("/".to_owned());
    }
    let mut folders = vec![root.clone()];
    let mut next = 0;
    while next < folders.len().min(FOLDERS_MAX) {
        let folder = folders[next].clone();
        next += 1;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.ino() == inode {
                let below = entry.path().strip_prefix(&root).ok()?.to_string_lossy().into_owned();
                return Some(format!("/{below}"));
            }
            folders.push(entry.path());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nowhere_has_no_path() {
        assert_eq!(path(u64::MAX), None);
    }
}
