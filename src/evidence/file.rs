//! Files, as the kernel knows and shows them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::stat::{major, minor};

use crate::probe::abi::fl_file_flag;
use crate::text::lossy;

/// What the kernel puts behind the path of a file that has been unlinked: fs/d_path.c.
pub(crate) const DELETED: &str = " (deleted)";

/// How many bits of a device number are the minor one: MINORBITS, include/linux/kdev_t.h.
const MINOR_BITS: u32 = 20;

/// A file, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct File {
    /// As the process saw it. `None` means that it isn't known.
    pub path: Option<String>,
    /// It was unlinked (a memfd always is).
    pub is_deleted: bool,
    /// Its identity. `None` means that the sample had no room for it.
    pub id: Option<FileId>,
    /// The build id in hexadecimal. `None` means that it has none, or that it was not found.
    pub build_id: Option<String>,
}

/// The kernel's identity of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct FileId {
    /// i_ino
    pub inode: u64,
    /// s_dev, as the kernel numbers devices.
    pub device: u64,
}

impl FileId {
    /// The inode of this number on the device of these two.
    pub fn new(major: i32, minor: i32, inode: u64) -> Self {
        Self { inode, device: u64::from(major.unsigned_abs()) << MINOR_BITS | u64::from(minor.unsigned_abs()) }
    }

    /// The file that stat(2) says this of.
    pub fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), device: major(metadata.dev()) << MINOR_BITS | minor(metadata.dev()) }
    }

    /// Which driver the device has; 0: none, the file system is on no one device.
    pub fn major(self) -> u64 {
        self.device >> MINOR_BITS
    }

    /// Which of the driver's devices it is.
    pub fn minor(self) -> u64 {
        self.device & ((1 << MINOR_BITS) - 1)
    }

    /// `major:minor`, as in /proc/PID/maps but in decimal.
    pub fn device_text(self) -> String {
        format!("{}:{}", self.major(), self.minor())
    }

    /// The device as stat(2) has it.
    pub fn stat_device(self) -> u64 {
        nix::sys::stat::makedev(self.major(), self.minor())
    }
}

impl File {
    /// The file of a sample, whichever probe's, by the name that is known of it. `flags`: `enum fl_file_flag`, which is the same in every
    /// probe's object.
    pub(crate) fn sampled(path: Option<&[u8]>, flags: u32, inode: u64, device: u32) -> Self {
        Self {
            path: path.map(lossy),
            is_deleted: flags & fl_file_flag::FL_FILE_DELETED.0 != 0,
            id: Some(FileId { inode, device: device.into() }),
            build_id: None,
        }
    }

    /// The file that is shown by this name, where the kernel makes the text: a path, and what it puts behind it.
    pub fn named(name: &str) -> Self {
        let path = name.strip_suffix(DELETED);
        Self { path: Some(path.unwrap_or(name).to_owned()), is_deleted: path.is_some(), ..Self::default() }
    }

    /// The path, with ` (deleted)` behind it if the file was unlinked.
    pub fn name(&self) -> Option<String> {
        self.path.as_ref().map(|path| format!("{path}{}", if self.is_deleted { DELETED } else { "" }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_the_numbers_that_stat_gives_it() {
        let id = FileId::new(259, 70_000, 7);
        assert_eq!((id.major(), id.minor(), id.device), (259, 70_000, 259 << 20 | 70_000));
        assert_eq!(id.stat_device(), nix::sys::stat::makedev(259, 70_000));
    }

    #[test]
    fn a_name_is_the_path_and_whether_it_was_unlinked() {
        for name in ["/tmp/x", "/tmp/x (deleted)"] {
            assert_eq!(File::named(name).name().as_deref(), Some(name));
            assert_eq!(File::named(name).path.as_deref(), Some("/tmp/x"));
        }
    }
}
