//! The memory of a process as user space sees it: its mappings, their pages, and the content. Reading it may block: only
//! `fetch` does.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use procfs::ProcError;
use procfs::process::{MemoryMaps, Process};
use rustix::fs::fstatfs;

use crate::arch::syscall::VSYSCALL;
use crate::evidence::{Backing, File, FileId, Region};
use crate::host;
use crate::output::lossy;
use crate::page;
use crate::symbol::{look_if_known, look_within, open_regular, reopen};

/// Entries of /proc/PID/pagemap that are read at once: 32 KiB.
const ENTRIES: usize = 4096;

/// On these file systems stat(2) shows another device for a mapped file than the kernel does.
const HAS_OTHER_DEVICE: [i64; 2] = [libc::BTRFS_SUPER_MAGIC, libc::OVERLAYFS_SUPER_MAGIC];

/// Can its content change without a call that we see? As fl_is_volatile(), bpf/include/pages.bpf.h.
pub(super) fn is_volatile(region: &Region) -> bool {
    let may = region.permissions;
    may.execute && (may.write || may.shared || region.file().is_some_and(|file| file.is_deleted))
}

/// Has it not ended yet?
pub(super) fn is_there(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| Process::new(pid).is_ok())
}

/// The mappings of a process, by address.
pub(super) fn regions(pid: u32) -> io::Result<Vec<Region>> {
    let maps: MemoryMaps = host::of_process(pid, "maps").map_err(with_number)?;
    Ok(maps.into_iter().filter(|map| !VSYSCALL.contains(&map.address.0)).map(|map| Region::from(&map)).collect())
}

/// The same error with the number that tells it to another process: procfs keeps none for these two.
fn with_number(error: ProcError) -> io::Error {
    match error {
        ProcError::PermissionDenied(_) => io::Error::from_raw_os_error(libc::EACCES),
        ProcError::NotFound(_) => io::Error::from_raw_os_error(libc::ENOENT),
        ProcError::Io(error, _) => error,
        error => io::Error::other(error),
    }
}

/// The kernel's information about a page: Documentation/admin-guide/mm/pagemap.rst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// The process never used it.
    Untouched,
    /// It is in memory or on swap, and the process's own.
    Own,
    /// It is in memory, and the file's.
    File,
}

impl Presence {
    fn of(entry: u64) -> Self {
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        const OF_FILE: u64 = 1 << 61;
        match entry {
            entry if entry & (PRESENT | SWAPPED) == 0 => Self::Untouched,
            entry if entry & OF_FILE != 0 => Self::File,
            _ => Self::Own,
        }
    }
}

/// A process's memory, held open: it is that of the program that ran when it was opened.
#[derive(Debug)]
pub(super) struct Memory {
    pid: u32,
    mem: fs::File,
    pagemap: fs::File,
}

impl Memory {
    /// Opens the memory of a process.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let open = |name: &str| fs::File::open(format!("/proc/{pid}/{name}"));
        Ok(Self { pid, mem: open("mem")?, pagemap: open("pagemap")? })
    }

    /// What [`Memory::from_descriptors`] takes.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.mem.as_fd(), self.pagemap.as_fd()]
    }

    /// Opened by another process of ours.
    pub(super) fn from_descriptors(pid: u32, mem: OwnedFd, pagemap: OwnedFd) -> Self {
        Self { pid, mem: mem.into(), pagemap: pagemap.into() }
    }

    /// Reads the page at `address`. `None` means that it isn't there.
    pub(super) fn page(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        self.mem.read_exact_at(bytes, address).ok()
    }

    /// Passes each page from `start` to `end` with the kernel's information to `take`, until that returns false. Returns false if the
    /// process is gone.
    pub(super) fn presence(&self, start: u64, end: u64, mut take: impl FnMut(u64, Presence) -> bool) -> bool {
        let mut bytes = vec![0; ENTRIES * 8];
        let mut address = start;
        while address < end {
            let wanted =
                usize::try_from((end - address).div_ceil(page::size())).map_or(ENTRIES, |pages| pages.min(ENTRIES));
            let read = match self.pagemap.read_at(&mut bytes[..wanted * 8], address / page::size() * 8) {
                Ok(read) if read >= 8 => read,
                _ => return false,
            };
            for entry in bytes[..read].chunks_exact(8) {
                let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
                if !take(address, Presence::of(entry)) {
                    return true;
                }
                address += page::size();
            }
        }
        true
    }

    /// The file that is mapped at `start` to `end`, even if another file is at its path. `None` means that we may not open it that way.
    pub(super) fn mapped_file(&self, start: u64, end: u64) -> Option<fs::File> {
        // A device may be mapped, which does something when it is opened.
        let link = format!("/proc/{}/map_files/{start:x}-{end:x}", self.pid);
        open_regular(Path::new(&link)).map(|(file, _)| file)
    }
}

/// Room for a page.
pub(super) fn page() -> Vec<u8> {
    vec![0; page::size() as usize]
}

/// The file of a mapping, by its path, if it is the same file: anybody may have put another one there, a FIFO or a link. Nothing is opened
/// before that is known.
pub(super) fn file_by_path(pid: u32, file: &File) -> Option<fs::File> {
    let path = Path::new(file.path.as_deref().filter(|_| !file.is_deleted)?);
    let id = file.id?;
    let below = path.strip_prefix("/").ok()?;
    // In the process's mount namespace as long as there is one: its links lead nowhere else. In ours nothing is mounted because of its path.
    look_within(pid, below, false)
        .into_iter()
        .chain(std::iter::from_fn(|| look_if_known(path)).take(1))
        .find(|looked_at| is_file(looked_at, id))
        .and_then(|looked_at| reopen(&looked_at))
        .map(|(opened, _)| opened)
}

/// Is it the file that was mapped?
fn is_file(looked_at: &fs::File, id: FileId) -> bool {
    let Ok(metadata) = looked_at.metadata() else { return false };
    metadata.ino() == id.inode
        && (metadata.dev() == id.stat_device() || (id.major() == 0 && has_other_device(looked_at, &metadata)))
}

/// Does stat(2) show another device than the kernel maps the file of? Both are the file system's own there. As the number of the inode is
/// then all that is compared, a file that not everybody may read is not believed.
fn has_other_device(looked_at: &fs::File, metadata: &fs::Metadata) -> bool {
    nix::sys::stat::major(metadata.dev()) == 0
        && metadata.mode() & 0o004 != 0
        && fstatfs(looked_at).is_ok_and(|system| HAS_OTHER_DEVICE.contains(&system.f_type))
}

/// Reads a page of a file; bytes behind its end are zeros, as in memory. `None` means that the whole page is behind the end.
pub(super) fn file_page(file: &fs::File, offset: u64, bytes: &mut [u8]) -> Option<()> {
    bytes.fill(0);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    (filled > 0).then_some(())
}

/// The page at `offset` of our own vdso. `None` means that ours is shorter.
pub(super) fn own_vdso(offset: u64) -> Option<Vec<u8>> {
    let pid = std::process::id();
    let regions = regions(pid).ok()?;
    let own = regions.iter().find(|region| region.backing == Backing::Vdso)?;
    let mut bytes = page();
    let address = own.start + offset;
    (address < own.end).then_some(())?;
    Memory::open(pid).ok()?.page(address, &mut bytes)?;
    Some(bytes)
}

/// A process's name; empty: it is gone.
pub(super) fn comm(pid: u32) -> String {
    fs::read(Path::new("/proc").join(pid.to_string()).join("comm"))
        .map(|name| lossy(name.trim_ascii_end()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Permissions;

    fn region_of(permissions: &str, file: Option<bool>) -> Region {
        let has = |letter| permissions.contains(letter);
        let file = file.map(|is_deleted| File { is_deleted, ..File::default() });
        Region {
            start: 0,
            end: page::size(),
            permissions: Permissions { read: true, write: has('w'), execute: has('x'), shared: has('s') },
            file_offset: 0,
            backing: file.map_or(Backing::Anonymous, Backing::File),
        }
    }

    #[test]
    fn what_can_change_is_executable_and_writable_shared_or_without_a_name() {
        assert!(is_volatile(&region_of("rwxp", None)));
        assert!(is_volatile(&region_of("r-xs", Some(false))));
        assert!(is_volatile(&region_of("r-xp", Some(true))));
        for (permissions, file) in [("r-xp", None), ("r-xp", Some(false)), ("rw-s", Some(true))] {
            assert!(!is_volatile(&region_of(permissions, file)), "{permissions}");
        }
    }

    #[test]
    fn an_entry_of_the_pagemap_says_whose_the_page_is() {
        assert_eq!(Presence::of(1 << 55), Presence::Untouched);
        assert_eq!(Presence::of(1 << 63), Presence::Own);
        assert_eq!(Presence::of(1 << 62), Presence::Own);
        assert_eq!(Presence::of(1 << 63 | 1 << 61), Presence::File);
    }

    /// It was `Success (os error 0)`.
    #[test]
    fn mappings_that_can_t_be_read_say_why() {
        assert_eq!(regions(u32::MAX).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(with_number(ProcError::PermissionDenied(None)).raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn our_own_memory_can_be_read() {
        let regions = regions(std::process::id()).unwrap();
        let own = regions.iter().find(|region| region.permissions.execute && region.file().is_some()).unwrap();
        let memory = Memory::open(std::process::id()).unwrap();
        let (mut from_memory, mut from_file) = (page(), page());
        memory.page(own.start, &mut from_memory).unwrap();
        let file = file_by_path(std::process::id(), own.file().unwrap()).unwrap();
        file_page(&file, own.file_offset, &mut from_file).unwrap();
        assert!(from_memory == from_file);
        assert!(Memory::open(u32::MAX).is_err());
    }

    /// A FIFO at the path of a mapped file would keep whoever opens it, and another file isn't what was mapped.
    #[test]
    fn only_the_file_that_was_mapped_is_opened() {
        let folder = std::env::temp_dir().join(format!("faultline-target-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("mapped");
        fs::write(&path, b"content").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let file =
            File { path: Some(path.to_str().unwrap().to_owned()), id: Some(FileId::of(&metadata)), ..File::default() };
        let opened = |file: &File| file_by_path(std::process::id(), file).is_some();
        assert!(opened(&file));
        let other = File { id: file.id.map(|id| FileId { device: id.device + 1, ..id }), ..file.clone() };
        assert!(!opened(&other), "another device");
        // A file system without a device of its own, as tmpfs: an inode's number alone proves nothing there.
        let other = File { id: file.id.map(|id| FileId { device: 1, ..id }), ..file.clone() };
        assert!(!opened(&other), "the same number on another file system");
        // Each of these takes the number and the place of the file.
        let fifo = folder.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let id = file.id.map(|id| FileId { inode: fs::metadata(&fifo).unwrap().ino(), ..id });
        let at_fifo = File { path: Some(fifo.to_str().unwrap().to_owned()), id, ..File::default() };
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || said.send(file_by_path(std::process::id(), &at_fifo).is_some()));
        let opened = heard.recv_timeout(std::time::Duration::from_secs(10));
        assert_eq!(opened, Ok(false), "nobody waits for a FIFO's writer");
        fs::remove_dir_all(&folder).unwrap();
    }
}
