//! The file that ran: found again by its path, and believed only if it is the same one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::read::ReadCache;
use object::{Object, ObjectKind};

/// How many build ids are remembered; all are forgotten when there are more.
const CACHE_MAX: usize = 1024;

/// What a record knows of a file.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Absolute, as the process saw it.
    pub path: &'a [u8],
    /// Read from the process's memory when it crashed; None: it could not be.
    pub build_id: Option<&'a [u8]>,
    /// The kernel's device number: major << 20 | minor.
    pub device: u32,
    /// The inode's number.
    pub inode: u64,
    /// The process, whose root may still be there.
    pub pid: u32,
    /// Is its mount namespace ours, so that `path` means the same to us?
    pub same_mounts: bool,
    /// When the record was taken, nanoseconds since 1970: a file changed later is another one.
    pub taken_ns: i128,
}

/// A file that is the one that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where we can read it now.
    pub path: PathBuf,
    /// Its build id; None: it has none.
    pub build_id: Option<Vec<u8>>,
}

/// One version of a file: any change to it is another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    changed_ns: i128,
}

/// Finds files and reads their build ids, each version once.
#[derive(Default)]
pub struct Files {
    build_ids: HashMap<Version, Option<Vec<u8>>>,
}

impl Files {
    /// The file that ran, None: it isn't to be found, or what lies there is another one.
    pub fn find(&mut self, wanted: &Wanted<'_>) -> Option<Found> {
        let path = PathBuf::from(OsString::from_vec(wanted.path.to_vec()));
        let through_root = Path::new("/proc").join(wanted.pid.to_string()).join("root");
        let candidates = [
            wanted.same_mounts.then(|| path.clone()),
            path.strip_prefix("/").ok().map(|below| through_root.join(below)),
        ];
        candidates.into_iter().flatten().find_map(|path| {
            let (version, build_id) = self.read(&path)?;
            is_same(wanted, &version, build_id.as_deref()).then_some(Found { path, build_id })
        })
    }

    fn read(&mut self, path: &Path) -> Option<(Version, Option<Vec<u8>>)> {
        // Not through a FIFO or a device, which could block or answer anything.
        if !path.metadata().ok()?.is_file() {
            return None;
        }
        let file = File::open(path).ok()?;
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let version = Version {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed_ns: i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        };
        if let Some(build_id) = self.build_ids.get(&version) {
            return Some((version, build_id.clone()));
        }
        let build_id = read_build_id(file);
        if self.build_ids.len() >= CACHE_MAX {
            self.build_ids.clear();
        }
        self.build_ids.insert(version, build_id.clone());
        Some((version, build_id))
    }
}

/// The build id of an ELF file, by reads rather than a mapping: a file that shrinks meanwhile is an error, not a SIGBUS.
fn read_build_id(file: File) -> Option<Vec<u8>> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).ok()?;
    match elf.kind() {
        ObjectKind::Executable | ObjectKind::Dynamic => elf.build_id().ok().flatten().map(<[u8]>::to_vec),
        _ => None,
    }
}

/// Equal build ids settle it. Without one from the process's memory, it must be the very inode, not changed since.
fn is_same(wanted: &Wanted<'_>, version: &Version, build_id: Option<&[u8]>) -> bool {
    match wanted.build_id {
        Some(ran) => build_id == Some(ran),
        None => {
            let (major, minor) = (u64::from(wanted.device >> 20), u64::from(wanted.device & 0xf_ffff));
            nix::sys::stat::makedev(major, minor) == version.device
                && version.inode == wanted.inode
                && version.changed_ns <= wanted.taken_ns
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { device: 0x801, inode: 7, size: 100, changed_ns: 1000 };

    fn wanted(build_id: Option<&'static [u8]>) -> Wanted<'static> {
        Wanted { path: b"/bin/x", build_id, device: 8 << 20 | 1, inode: 7, pid: 1, same_mounts: true, taken_ns: 2000 }
    }

    #[test]
    fn a_build_id_settles_it() {
        assert!(is_same(&wanted(Some(b"one")), &VERSION, Some(b"one")));
        assert!(is_same(&wanted(Some(b"one")), &Version { inode: 8, ..VERSION }, Some(b"one")));
        assert!(!is_same(&wanted(Some(b"one")), &VERSION, Some(b"two")));
        assert!(!is_same(&wanted(Some(b"one")), &VERSION, None));
    }

    #[test]
    fn without_one_it_must_be_the_very_file() {
        assert!(is_same(&wanted(None), &VERSION, Some(b"any")));
        assert!(!is_same(&wanted(None), &Version { device: 0x802, ..VERSION }, None));
        assert!(!is_same(&wanted(None), &Version { inode: 8, ..VERSION }, None));
        assert!(!is_same(&wanted(None), &Version { changed_ns: 2001, ..VERSION }, None));
    }

    #[test]
    fn hostile_paths_are_not_found() {
        let mut files = Files::default();
        for path in [&b"/dev/zero"[..], b"/proc/self/mem", b"/nonexistent", b"/etc", b"", b"/\xff\xfe"] {
            let gone = Wanted { path, pid: u32::MAX, ..wanted(Some(b"one")) };
            assert_eq!(files.find(&gone), None);
        }
    }
}
