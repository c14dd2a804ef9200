//! A place where a file may be, and how to look there without opening anything: what lies there may block, or do something when it is
//! opened.

use std::fs::File;
use std::path::PathBuf;

use crate::symbol::{look, look_within};

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
    /// The file there, whatever it is: a descriptor that can't be read from.
    pub(super) fn look(&self) -> Option<File> {
        match self {
            Self::Host(path) | Self::Link(_, path) => look(path),
            Self::Within(pid, path) => look_within(*pid, path),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use rustix::fs::ResolveFlags;

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
        let own = Place::Within(std::process::id(), "etc/passwd".into()).look().unwrap();
        assert_eq!(own.metadata().unwrap().ino(), std::fs::metadata("/etc/passwd").unwrap().ino());
    }
}
