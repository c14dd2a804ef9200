//! The memory of a process as user space sees it: its mappings, their pages, and the content.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use procfs::process::Process;

use crate::arch::syscall::VSYSCALL;
use crate::evidence::{Backing, File, Region};
use crate::output::lossy;
use crate::page;

/// Entries of /proc/PID/pagemap that are read at once: 32 KiB.
const ENTRIES: usize = 4096;

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
    let process = i32::try_from(pid).map(Process::new).map_err(io::Error::other)?.map_err(io::Error::other)?;
    let maps = process.maps().map_err(io::Error::other)?;
    Ok(maps.into_iter().filter(|map| !VSYSCALL.contains(&map.address.0)).map(|map| Region::from(&map)).collect())
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

    /// The file that is mapped at `start` to `end`, whatever lies at its path. `None` means that we may not open it that way.
    pub(super) fn mapped_file(&self, start: u64, end: u64) -> Option<fs::File> {
        fs::File::open(format!("/proc/{}/map_files/{start:x}-{end:x}", self.pid)).ok()
    }
}

/// Room for a page.
pub(super) fn page() -> Vec<u8> {
    vec![0; page::size() as usize]
}

/// The file of a mapping, by its path, if it is the same file.
pub(super) fn file_by_path(pid: u32, file: &File) -> Option<fs::File> {
    let path = file.path.as_deref().filter(|_| !file.is_deleted)?;
    let id = file.id?;
    // In the process's mount namespace as long as there is one.
    for root in [format!("/proc/{pid}/root"), String::new()] {
        let Ok(opened) = fs::File::open(format!("{root}{path}")) else { continue };
        let is_it = opened.metadata().is_ok_and(|metadata| {
            // Some file systems (btrfs, overlayfs) show another device than the kernel's; the number then is the same.
            metadata.ino() == id.inode && (metadata.dev() == id.stat_device() || id.major() == 0)
        });
        if is_it {
            return Some(opened);
        }
    }
    None
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
}
