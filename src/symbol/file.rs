//! The file that ran: found again by its path, and believed only if it is the same one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use object::elf::{ELF_NOTE_GNU, FileHeader32, FileHeader64, NT_GNU_BUILD_ID, SectionHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, FileKind};

/// How much of a file is read for its build id: program headers and notes stand at the beginning.
const HEAD_BYTES: u64 = 256 * 1024;

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
    /// Processes through whose root the path may lead to the file: the one that ran it, and its living relatives.
    pub pids: [u32; 2],
    /// Is its mount namespace ours? Then the path is the first to be tried; else the last, and rarely right.
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
    /// Its debug information may be read: it is in the file itself, or only root can have said in which other file it is.
    pub may_follow: bool,
    /// Which state of the file this is.
    pub version: Version,
}

/// What is remembered of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Elf {
    build_id: Option<Vec<u8>>,
    may_follow: bool,
}

/// One version of a file: any change to it is another version.
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
}

impl Found {
    /// What lies at `path` now, whoever ran it.
    #[cfg(test)]
    pub(super) fn at(path: &Path) -> Option<Self> {
        let (version, Elf { build_id, may_follow }) = Files::default().read(path)?;
        Some(Self { path: path.to_owned(), build_id, may_follow, version })
    }

    /// The file, opened. None: by now, another version of it lies there.
    pub(super) fn open(&self) -> Option<File> {
        let (file, metadata) = open_regular(&self.path)?;
        (Version::of(&metadata) == self.version).then_some(file)
    }

    /// Is what was read from `file`, opened by [`Found::open`], still its content?
    pub(super) fn is_unchanged(&self, file: &File) -> bool {
        file.metadata().is_ok_and(|metadata| Version::of(&metadata) == self.version)
    }
}

/// Whatever lies there by now, a FIFO that keeps us waiting or a device that does things when it is opened: only a regular
/// file is opened, after a look that opens nothing.
fn open_regular(path: &Path) -> Option<(File, Metadata)> {
    let looked_at = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path).ok()?;
    looked_at.metadata().ok().filter(Metadata::is_file)?;
    let again = Path::new("/proc/self/fd").join(looked_at.as_raw_fd().to_string());
    let flags = OFlag::O_NONBLOCK.bits() | OFlag::O_NOCTTY.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(again).ok()?;
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    Some((file, metadata))
}

/// Finds files and reads their build ids, each version once.
#[derive(Default)]
pub struct Files {
    read: HashMap<Version, Elf>,
}

impl Files {
    /// The file that ran, None: it isn't to be found, or what lies there is another one.
    pub fn find(&mut self, wanted: &Wanted<'_>) -> Option<Found> {
        let path = PathBuf::from(OsString::from_vec(wanted.path.to_vec()));
        let through_root = |pid: u32| {
            let root = Path::new("/proc").join(pid.to_string()).join("root");
            path.strip_prefix("/").ok().map(|below| root.join(below))
        };
        let [itself, parent] = wanted.pids.map(through_root);
        let plain = |wanted: bool| wanted.then(|| path.clone());
        // A service that may not write has a mount namespace of its own with the host's files in it: our own path is worth
        // a look in any case, because what is found must be the very build.
        let candidates = [plain(wanted.same_mounts), itself, parent, plain(!wanted.same_mounts)];
        candidates.into_iter().flatten().find_map(|path| {
            let (version, Elf { build_id, may_follow }) = self.read(&path)?;
            is_same(wanted, &version, build_id.as_deref()).then_some(Found { path, build_id, may_follow, version })
        })
    }

    fn read(&mut self, path: &Path) -> Option<(Version, Elf)> {
        let (file, metadata) = open_regular(path)?;
        let version = Version::of(&metadata);
        if let Some(elf) = self.read.get(&version) {
            return Some((version, elf.clone()));
        }
        let mut head = Vec::new();
        (&file).take(HEAD_BYTES).read_to_end(&mut head).ok()?;
        let is_roots = metadata.uid() == 0 && metadata.mode() & 0o022 == 0;
        let elf = Elf { build_id: build_id(&head), may_follow: is_roots || !names_another(&file, &head) };
        if self.read.len() >= CACHE_MAX {
            self.read.clear();
        }
        self.read.insert(version, elf.clone());
        Some((version, elf))
    }
}

/// The build id in the first bytes of an ELF file, where linkers put its notes. Reads no more than it was given, by copy
/// rather than through a mapping: a file that shrinks meanwhile is an error and not a SIGBUS.
fn build_id(head: &[u8]) -> Option<Vec<u8>> {
    match FileKind::parse(head).ok()? {
        FileKind::Elf64 => build_id_in::<FileHeader64<Endianness>>(head),
        FileKind::Elf32 => build_id_in::<FileHeader32<Endianness>>(head),
        _ => None,
    }
}

fn build_id_in<Header: FileHeader<Endian = Endianness>>(head: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(head).ok()?;
    let endian = header.endian().ok()?;
    for program in header.program_headers(endian, head).ok()? {
        let Ok(Some(mut notes)) = program.notes(endian, head) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec());
            }
        }
    }
    None
}

/// Longer section names than any linker makes are not looked through.
const SECTION_NAMES_MAX: u64 = 1 << 20;

/// Does the file say that its debug information is in another one (.gnu_debuglink, .gnu_debugaltlink)? Anybody's file may
/// name a FIFO there, or a file that isn't theirs. Yes where it can't be told.
fn names_another(file: &File, head: &[u8]) -> bool {
    let names = || -> Option<Vec<u8>> {
        let header = FileHeader64::<Endianness>::parse(head).ok()?;
        let endian = header.endian().ok()?;
        let table = header.e_shoff(endian);
        if table == 0 {
            return Some(Vec::new());
        }
        const SIZE: usize = size_of::<SectionHeader64<Endianness>>();
        let mut section = [0; SIZE];
        let index = u64::from(header.e_shstrndx(endian));
        file.read_exact_at(&mut section, table.checked_add(index * SIZE as u64)?).ok()?;
        let (section, _) = object::from_bytes::<SectionHeader64<Endianness>>(&section).ok()?;
        let length = section.sh_size(endian);
        if length > SECTION_NAMES_MAX {
            return None;
        }
        let mut names = vec![0; length as usize];
        file.read_exact_at(&mut names, section.sh_offset(endian)).ok()?;
        Some(names)
    };
    names().is_none_or(|names| memchr::memmem::find(&names, b".gnu_debug").is_some())
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
        Wanted {
            path: b"/bin/x",
            build_id,
            device: 8 << 20 | 1,
            inode: 7,
            pids: [1, 1],
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
            let gone = Wanted { path, pids: [u32::MAX; 2], ..wanted(Some(b"one")) };
            assert_eq!(files.find(&gone), None);
        }
    }
}
