//! Finds the file that ran again, and believes only the same file.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::debug::{self, DebugFolders};
use super::elf;
use super::relatives::{self, Relatives};
use crate::evidence::FileId;

/// How much of a file is read for its build id: program headers and notes are at the beginning.
const HEAD_BYTES: u64 = 256 * 1024;

/// How many build ids are remembered; all are forgotten when there are more.
const CACHE_MAX: usize = 1024;

/// A file to be found, as a record describes it.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Absolute, up to the root of the process's mount namespace.
    pub path: &'a [u8],
    /// The build id in the process's memory when it crashed; `None` means that it could not be read.
    pub build_id: Option<&'a [u8]>,
    /// Which one it is.
    pub id: FileId,
    /// The process that ran it.
    pub process: Holder,
    /// Was the file unlinked when the record was taken?
    pub deleted: bool,
    /// How the process used it.
    pub usage: Usage,
    /// Is the mount namespace ours? Then the path is tried first; else last, because it is rarely right.
    pub same_mounts: bool,
    /// When the record was taken, nanoseconds since 1970: a file that was changed later is another one.
    pub taken_ns: i128,
}

/// A process that had a file. It may be gone.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its thread that crashed, which has files and memory even if the first thread has ended.
    pub tid: u32,
    /// Its parent.
    pub parent: u32,
    /// The inode of its mount namespace.
    pub mount_namespace: u32,
}

/// How a process used a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// It ran code of the file.
    Code {
        /// The first address of the code and the one behind it.
        mapped: Option<(u64, u64)>,
        /// It is the program, not a library.
        is_executable: bool,
    },
    /// It didn't run code of the file, so that nobody needs its symbols: it is looked for at its path only.
    Data,
}

/// A file that is the one that ran.
#[derive(Clone, Debug)]
pub struct Found {
    /// Open while its record is made, and no longer: an open file keeps its mount busy and its disk full. `None` means that it can't be
    /// found any more, but was found once; what was read of it then may still be there.
    pub(super) file: Option<Arc<File>>,
    /// Its path as the process saw it.
    pub(super) path: PathBuf,
    /// The folder that it was found in; `None` means that it wasn't found by its name.
    pub(super) folder: Option<PathBuf>,
    /// Its build id; `None` means that it has none.
    pub build_id: Option<Vec<u8>>,
    /// Its version.
    pub(super) version: Version,
}

/// One version of a file: any change makes another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    device: u64,
    inode: u64,
    size: u64,
    changed_ns: i128,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed_ns: i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        }
    }

    /// Is `file` still in this version?
    pub(super) fn is_of(self, file: &File) -> bool {
        file.metadata().is_ok_and(|metadata| Self::of(&metadata) == self)
    }
}

impl Found {
    /// The file at `path` now, whatever process ran it.
    #[cfg(any(test, fuzzing))]
    pub(super) fn at(path: &Path) -> Option<Self> {
        let (file, version, build_id) = Files::default().read(path)?;
        let folder = path.parent().map(Path::to_owned);
        Some(Self { file: Some(Arc::new(file)), path: path.to_owned(), folder, build_id, version })
    }
}

/// Opens a regular file. At the path there may be a FIFO that would block us, or a device that does something when it is opened: so the
/// type is checked first, by O_PATH, which opens nothing.
pub(super) fn open_regular(path: &Path) -> Option<(File, Metadata)> {
    let looked_at = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path).ok()?;
    looked_at.metadata().ok().filter(Metadata::is_file)?;
    let again = Path::new("/proc/self/fd").join(looked_at.as_raw_fd().to_string());
    let flags = OFlag::O_NONBLOCK.bits() | OFlag::O_NOCTTY.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(again).ok()?;
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    Some((file, metadata))
}

/// The first bytes of a file.
pub(super) fn head(file: &File) -> Option<Vec<u8>> {
    // From the beginning, not from the file's position: it may have been read before.
    let length = file.metadata().ok()?.len().min(HEAD_BYTES);
    elf::Source::File(file).read(0, length)
}

/// Identifies a file within one run, whatever became of its name: build id, device, inode.
type Identity = (Vec<u8>, FileId);

/// Finds files and reads their build ids, each version once.
#[derive(Default)]
pub struct Files {
    folders: DebugFolders,
    read: HashMap<Version, Option<Vec<u8>>>,
    relatives: Relatives,
    /// Files that were found once.
    seen: HashMap<Identity, Found>,
}

impl Files {
    /// Finds files in `folders`, too, by their build ids.
    pub fn new(folders: DebugFolders) -> Self {
        Self { folders, ..Self::default() }
    }

    /// The file that ran; `None` means that it can't be found, or that another file lies there.
    pub fn find(&mut self, wanted: &Wanted<'_>) -> Option<Found> {
        let identity = wanted.build_id.map(|build_id| (build_id.to_vec(), wanted.id));
        let found = self.look(wanted);
        let Some(identity) = identity else { return found };
        match found {
            Some(found) => {
                if self.seen.len() >= CACHE_MAX {
                    self.seen.clear();
                }
                self.seen.insert(identity, Found { file: None, ..found.clone() });
                Some(found)
            }
            None => self.seen.get(&identity).cloned(),
        }
    }

    fn look(&mut self, wanted: &Wanted<'_>) -> Option<Found> {
        let path = Path::new(std::ffi::OsStr::from_bytes(wanted.path));
        let by_path = relatives::by_path(wanted, path);
        if let Some(found) = by_path.into_iter().find_map(|place| self.try_place(wanted, path, &place)) {
            return Some(found);
        }
        if wanted.usage == Usage::Data {
            return None;
        }
        let near = relatives::near(wanted, path);
        if let Some(found) = near.into_iter().find_map(|place| self.try_place(wanted, path, &place)) {
            return Some(found);
        }
        if self.relatives.may_look(wanted) {
            for place in relatives::far(wanted, path) {
                if let Some(found) = self.try_place(wanted, path, &place) {
                    return Some(found);
                }
            }
            self.relatives.failed(wanted);
        }
        let by_build_id = debug::by_build_id(&self.folders, wanted.build_id?);
        by_build_id.into_iter().find_map(|place| self.try_place(wanted, path, &Candidate::Elsewhere(place)))
    }

    fn try_place(&mut self, wanted: &Wanted<'_>, path: &Path, place: &Candidate) -> Option<Found> {
        let (file, version, build_id) = self.read(place.path())?;
        if !is_same(wanted, &version, build_id.as_deref()) {
            return None;
        }
        let folder = match place {
            Candidate::Named(place) => place.parent().map(Path::to_owned),
            Candidate::Elsewhere(_) => None,
        };
        Some(Found { file: Some(Arc::new(file)), path: path.to_owned(), folder, build_id, version })
    }

    fn read(&mut self, path: &Path) -> Option<(File, Version, Option<Vec<u8>>)> {
        let (file, metadata) = open_regular(path)?;
        let version = Version::of(&metadata);
        if let Some(build_id) = self.read.get(&version) {
            return Some((file, version, build_id.clone()));
        }
        let build_id = elf::build_id(&head(&file)?);
        if self.read.len() >= CACHE_MAX {
            self.read.clear();
        }
        self.read.insert(version, build_id.clone());
        Some((file, version, build_id))
    }
}

/// Where a file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// At a path of its own, next to which its debug file may lie.
    Named(PathBuf),
    /// By another way: next to it lies nothing of its own.
    Elsewhere(PathBuf),
}

impl Candidate {
    fn path(&self) -> &Path {
        match self {
            Self::Named(path) | Self::Elsewhere(path) => path,
        }
    }
}

/// Is it the file that ran? Equal build ids prove it. Without a build id from the process's memory it must be the same inode, unchanged since.
fn is_same(wanted: &Wanted<'_>, version: &Version, build_id: Option<&[u8]>) -> bool {
    match wanted.build_id {
        Some(ran) => build_id == Some(ran),
        None => {
            wanted.id.stat_device() == version.device
                && wanted.id.inode == version.inode
                && version.changed_ns <= wanted.taken_ns
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { device: 0x801, inode: 7, size: 100, changed_ns: 1000 };

    fn wanted(build_id: Option<&'static [u8]>) -> Wanted<'static> {
        Wanted {
            path: b"/bin/x",
            build_id,
            id: FileId::new(8, 1, 7),
            process: Holder { pid: u32::MAX, tid: u32::MAX, parent: u32::MAX, mount_namespace: 1 },
            deleted: false,
            usage: Usage::Code { mapped: Some((0x1000, 0x2000)), is_executable: true },
            same_mounts: true,
            taken_ns: 2000,
        }
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
            assert!(files.find(&Wanted { path, ..wanted(Some(b"one")) }).is_none());
        }
    }

    #[test]
    fn what_was_found_once_is_known_by_its_build_id_and_inode() {
        let own = std::env::current_exe().unwrap();
        let (mut files, id) = (Files::default(), Found::at(&own).unwrap().build_id.unwrap());
        let there = Wanted { path: own.as_os_str().as_bytes(), build_id: Some(&id), ..wanted(None) };
        let found = files.find(&there).unwrap();
        assert!(found.file.is_some());
        let gone = Wanted { path: b"/nonexistent", ..there.clone() };
        let again = files.find(&gone).unwrap();
        assert!(again.file.is_none() && again.version == found.version, "nothing is kept open");
        assert!(
            files.find(&Wanted { id: FileId::new(8, 1, 8), ..gone.clone() }).is_none(),
            "another file may claim its build id"
        );
        assert!(files.find(&Wanted { build_id: Some(b"other"), ..gone }).is_none());
    }
}
