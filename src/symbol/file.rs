//! Knows the file that ran again: by its build id, and by who opened it.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use nix::fcntl::OFlag;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::elf;
use super::request::{FileRequest, Open, Usage};
use super::walk;
use crate::evidence::{Failure, FileId};

/// How much of a file is read for its build id: program headers and notes are at the beginning.
const HEAD_BYTES: u64 = 256 * 1024;

/// How many build ids are remembered; all are forgotten when there are more.
const CACHE_MAX: usize = 1024;

/// A file that is the one that ran.
#[derive(Clone, Debug)]
pub(crate) struct MappedFile {
    /// Open while its record is made, and no longer: an open file keeps its mount busy and its disk full. `None` means that it can't be
    /// found any more, but was found once; what was read of it then may still be there.
    pub(super) file: Option<Arc<File>>,
    /// Its number in the record, by which its debug file is asked for.
    pub number: usize,
    /// Its build id; `None` means that it has none.
    pub build_id: Option<Vec<u8>>,
    /// Its version.
    pub(super) version: Version,
}

/// One version of a file: any change makes another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    device: u64,
    inode: u64,
    size: u64,
    changed_ns: i128,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), changed_ns: changed_ns(metadata) }
    }

    /// Is `file` still in this version?
    pub(super) fn is_of(self, file: &File) -> bool {
        file.metadata().is_ok_and(|metadata| Self::of(&metadata) == self)
    }
}

/// When a file was changed last, nanoseconds since 1970.
pub(crate) fn changed_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
}

impl MappedFile {
    /// What is in it now. `None` means that it is gone.
    pub(crate) fn contents(&self) -> Option<&File> {
        self.file.as_deref()
    }

    /// What no process ran from a file, as the file of this number.
    pub(super) fn of(file: File, number: usize) -> Option<Self> {
        let (version, build_id) = Files::default().read(&file)?;
        Some(Self { file: Some(Arc::new(file)), number, build_id, version })
    }

    /// The file at `path` now, even if no process ran it.
    #[cfg(any(test, fuzzing))]
    pub(super) fn at(path: &Path) -> Option<Self> {
        Self::of(open_regular(path)?.0, 0)
    }
}

/// What lies at this path of the host's, whatever it is: a descriptor that can't be read from. Nothing is opened: what lies there may block,
/// or do something.
pub(crate) fn look(path: &Path) -> Option<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path).ok()
}

/// The same at `path` below `folder`.
pub(crate) fn look_below(folder: &File, path: &Path, resolve: ResolveFlags) -> Option<File> {
    match openat2(folder, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(error) if is_refused(error) => walk::look(folder, path, resolve),
        found => found.ok().map(File::from),
    }
}

/// The same at `path` below the root of a process, which no link leaves. `if_known`: as [`look_if_known`].
pub(crate) fn look_within(pid: u32, path: &Path, if_known: bool) -> Option<File> {
    let root = look(&Path::new("/proc").join(pid.to_string()).join("root"))?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if if_known { look_below_if_known(&root, path, resolve) } else { look_below(&root, path, resolve) }
}

/// What lies at this path of the host's, if the kernel knows it without asking a file system: nothing is mounted because of it. A link that
/// nobody has followed for a day is not followed: the kernel would have to write its time of access.
pub(crate) fn look_if_known(path: &Path) -> Option<File> {
    look_cached(None, path, ResolveFlags::empty())
}

/// The same at `path` below `folder`.
pub(crate) fn look_below_if_known(folder: &File, path: &Path, resolve: ResolveFlags) -> Option<File> {
    look_cached(Some(folder), path, resolve)
}

/// Kernels before v5.12 can't be asked for that: they look as they do otherwise. Where it can't be asked for in any other way, a file system may
/// be asked, but nothing is mounted either.
fn look_cached(folder: Option<&File>, path: &Path, resolve: ResolveFlags) -> Option<File> {
    let from = folder.map_or(CWD, AsFd::as_fd);
    let open = |resolve| openat2(from, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    let found = match open(resolve | ResolveFlags::CACHED) {
        Err(Errno::INVAL) => open(resolve),
        Err(error) if is_refused(error) || (error == Errno::AGAIN && !knows_what_it_knows()) => {
            return match folder {
                Some(folder) => walk::look(folder, path, resolve),
                None => walk::look(&look(Path::new("/"))?, path, ResolveFlags::IN_ROOT),
            };
        }
        found => found,
    };
    found.ok().map(File::from)
}

/// Is it openat2(2) itself that is refused, by a filter?
fn is_refused(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::NOSYS)
}

/// Does the kernel find a file that it knows? 5.10 has RESOLVE_CACHED from 5.10.162 on, but for the root folder it always has to ask.
fn knows_what_it_knows() -> bool {
    static KNOWS: LazyLock<bool> = LazyLock::new(|| {
        openat2(CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::CACHED).is_ok()
    });
    *KNOWS
}

/// Opens a regular file. At the path there may be a FIFO that would block us, or a device that does something when it is opened: so it is
/// looked at first.
pub(crate) fn open_regular(path: &Path) -> Option<(File, Metadata)> {
    reopen(&look(path)?)
}

/// The kernel's link to what is open.
pub(crate) fn descriptor(file: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// The path of an open file, without links.
pub(crate) fn place_of(file: &File) -> Option<PathBuf> {
    std::fs::read_link(descriptor(file)).ok()
}

/// Opens a file that was opened by O_PATH, if it is a regular one.
pub(crate) fn reopen(looked_at: &File) -> Option<(File, Metadata)> {
    looked_at.metadata().ok().filter(Metadata::is_file)?;
    let again = descriptor(looked_at);
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

/// Does it begin as an ELF file?
pub(crate) fn is_elf(file: &File) -> bool {
    elf::Source::File(file).read(0, 4).is_some_and(|magic| magic == object::elf::ELFMAG)
}

/// The build id in an ELF file; `None` means that it has none.
pub(crate) fn build_id_of(file: &File) -> Option<Vec<u8>> {
    elf::build_id(&head(file)?)
}

/// Identifies a file within one run, independent of its name: build id, device, inode.
type Identity = (Vec<u8>, FileId);

/// Knows files, and reads their build ids, each version once.
#[derive(Default)]
pub(crate) struct Files {
    read: HashMap<Version, Option<Vec<u8>>>,
    /// Files that were found once.
    seen: HashMap<Identity, MappedFile>,
}

impl Files {
    /// The file that ran, which has this number for `open`.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub(crate) fn find(
        &mut self,
        wanted: &FileRequest,
        number: usize,
        open: &mut dyn Open,
    ) -> Result<MappedFile, Failure> {
        if let Some(reason) = wanted.refused {
            return Err(reason);
        }
        let opened = open.mapped(number);
        // A build id in memory is anybody's to write: where the file is there and has another one, that one leads to no debug file. The
        // file may be root's, and a debug file that only root may read would be given away.
        let found = match &opened {
            Ok(Some(file)) => self.known(wanted, file, number),
            _ => self.by_build_id(wanted, number, open),
        };
        let identity = wanted.build_id.clone().map(|build_id| (build_id, wanted.id));
        match (found, identity) {
            (Some(found), Some(identity)) => {
                if self.seen.len() >= CACHE_MAX {
                    self.seen.clear();
                }
                self.seen.insert(identity, MappedFile { file: None, ..found.clone() });
                Ok(found)
            }
            (Some(found), None) => Ok(found),
            (None, identity) => match identity.and_then(|identity| self.seen.get(&identity)) {
                Some(seen) => Ok(MappedFile { number, ..seen.clone() }),
                None => Err(match opened {
                    Ok(Some(_)) => Failure::OtherFile,
                    Ok(None) => Failure::NotFound,
                    Err(failure) => failure,
                }),
            },
        }
    }

    /// The file that was opened is the one that ran. It may have been written to since: then its build id is another one.
    fn known(&mut self, wanted: &FileRequest, file: &File, number: usize) -> Option<MappedFile> {
        let (version, build_id) = self.read(file)?;
        if wanted.build_id.is_some() && wanted.build_id != build_id {
            return None;
        }
        Some(MappedFile { file: Some(Arc::new(file.try_clone().ok()?)), number, build_id, version })
    }

    /// The debug file in its place, if the file itself is gone.
    fn by_build_id(&mut self, wanted: &FileRequest, number: usize, open: &mut dyn Open) -> Option<MappedFile> {
        let build_id = wanted.build_id.as_deref()?;
        if wanted.usage == Usage::Data {
            return None;
        }
        open.by_build_id(number, build_id).into_iter().find_map(|file| self.known(wanted, &file, number))
    }

    fn read(&mut self, file: &File) -> Option<(Version, Option<Vec<u8>>)> {
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        let version = Version::of(&metadata);
        if let Some(build_id) = self.read.get(&version) {
            return Some((version, build_id.clone()));
        }
        let build_id = elf::build_id(&head(file)?);
        if self.read.len() >= CACHE_MAX {
            self.read.clear();
        }
        self.read.insert(version, build_id.clone());
        Some((version, build_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbol::Usage;

    /// Gives this file for each number.
    struct Giver(Option<File>);

    impl Open for Giver {
        fn mapped(&mut self, _: usize) -> Result<Option<File>, Failure> {
            Ok(self.0.as_ref().map(|file| file.try_clone().unwrap()))
        }

        fn debug(&mut self, _: usize, _: &[u8], _: Option<&[u8]>) -> Vec<File> {
            Vec::new()
        }
    }

    fn own() -> Giver {
        Giver(Some(File::open(std::env::current_exe().unwrap()).unwrap()))
    }

    fn wanted(build_id: Option<&[u8]>) -> FileRequest {
        FileRequest {
            path: None,
            build_id: build_id.map(<[u8]>::to_vec),
            id: FileId::new(8, 1, 7),
            is_deleted: false,
            usage: Usage::Code { mapped: Some((0x1000, 0x2000)), is_executable: true },
            refused: None,
        }
    }

    #[test]
    fn a_file_that_was_written_to_is_another() {
        let id = MappedFile::at(&std::env::current_exe().unwrap()).unwrap().build_id.unwrap();
        let find = |wanted: &FileRequest| Files::default().find(wanted, 0, &mut own());
        assert!(find(&wanted(Some(&id))).is_ok());
        assert!(find(&wanted(None)).is_ok_and(|found| found.build_id == Some(id)));
        assert_eq!(find(&wanted(Some(b"other"))).map(drop), Err(Failure::OtherFile));
    }

    #[test]
    fn what_was_found_once_is_known_by_its_build_id_and_inode() {
        let id = MappedFile::at(&std::env::current_exe().unwrap()).unwrap().build_id.unwrap();
        let (mut files, there) = (Files::default(), wanted(Some(&id)));
        let found = files.find(&there, 0, &mut own()).unwrap();
        assert!(found.file.is_some());
        let mut gone = Giver(None);
        let again = files.find(&there, 3, &mut gone).unwrap();
        assert!(again.file.is_none() && again.version == found.version, "nothing is kept open");
        assert_eq!(again.number, 3, "another record has other numbers");
        let claims = FileRequest { id: FileId::new(8, 1, 8), ..there.clone() };
        let mut missing = |wanted: &FileRequest| files.find(wanted, 0, &mut gone).map(drop);
        assert_eq!(missing(&claims), Err(Failure::NotFound), "another file may claim its build id");
        assert_eq!(missing(&wanted(Some(b"other"))), Err(Failure::NotFound));
    }

    #[test]
    fn what_failed_before_is_not_opened() {
        let refused = FileRequest { refused: Some(Failure::FailedBefore), ..wanted(None) };
        assert_eq!(Files::default().find(&refused, 0, &mut own()).map(drop), Err(Failure::FailedBefore));
    }
}
