//! A place where a file may be, and how to look there without opening anything: what lies there may block, or do something when it is
//! opened.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::symbol::{Holder, look, look_if_known, look_within};

/// Where a file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At a path of the host's.
    Host(PathBuf),
    /// At a path below the root of a process, which it can't leave: a container's links mean the container's files.
    Within(u32, PathBuf),
    /// Behind a link of the kernel's to a file that a process has open.
    Link(u32, PathBuf),
}

impl Place {
    /// The file there, whatever it is: a descriptor that can't be read from. Where the path is that of a process in other mounts than those of
    /// the place, it is only found if the kernel knows it already: else it could have something mounted here (autofs) that the process could
    /// not have had mounted.
    pub(super) fn look(&self, process: Holder, same_mounts: bool) -> Option<File> {
        match self {
            Self::Link(_, path) => look(path),
            Self::Host(path) if same_mounts => look(path),
            Self::Host(path) => look_if_known(path),
            Self::Within(pid, path) => {
                let is_its_own = *pid == process.tid || is_in(*pid, process.mount_namespace);
                look_within(*pid, path, !is_its_own)
            }
        }
    }

    /// The process whose mounts the place is in. `None` means ours.
    pub(super) fn process(&self) -> Option<u32> {
        match self {
            Self::Host(_) => None,
            Self::Within(pid, _) | Self::Link(pid, _) => Some(*pid),
        }
    }
}

/// Is the process in the mount namespace of this number?
pub(super) fn is_in(pid: u32, mount_namespace: u32) -> bool {
    fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/mnt"))
        .is_ok_and(|link| link == Path::new(&format!("mnt:[{mount_namespace}]")))
}

#[cfg(test)]
mod tests {
    use rustix::fs::ResolveFlags;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::symbol::look_below;

    #[test]
    fn a_link_does_not_lead_out_of_the_root() {
        let folder = std::env::temp_dir().join(format!("faultline-place-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        symlink("/etc/passwd", folder.join("out")).unwrap();
        symlink("../../../../../../etc/passwd", folder.join("up")).unwrap();
        let root = look(&folder).unwrap();
        for name in ["out", "up"] {
            assert!(look(&folder.join(name)).is_some());
            assert!(look_below(&root, Path::new(name), ResolveFlags::IN_ROOT).is_none(), "{name}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        let pid = std::process::id();
        let process = Holder { pid, tid: pid, parent: 0, mount_namespace: 0 };
        let own = Place::Within(pid, "etc/passwd".into()).look(process, true).unwrap();
        assert_eq!(own.metadata().unwrap().ino(), std::fs::metadata("/etc/passwd").unwrap().ino());
    }
}
