//! The contents of an address space: mappings and their files.

use std::fmt;

use procfs::process::{MMPermissions, MMapPath, MemoryMap};
use serde::{Deserialize, Serialize};

use super::file::{DELETED, File, FileId};
use crate::probe::abi::{fl_crash, fl_permission, fl_vma};

/// The mappings at an address and next to it. All `None` means that they were not looked up, or could not be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The mapping that holds the address.
    pub at: Option<Region>,
    /// The nearest one below: of the address, or of `at` where that is known.
    pub below: Option<Region>,
    /// The nearest one above.
    pub above: Option<Region>,
}

impl Surroundings {
    /// Nothing is mapped at the address, and that was looked up: a process always has some mapping.
    pub(crate) fn is_hole(&self) -> bool {
        self.at.is_none() && (self.below.is_some() || self.above.is_some())
    }
}

/// One mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Its permissions.
    pub permissions: Permissions,
    /// The offset of `start` in the file, bytes; 0 if there is no file.
    pub file_offset: u64,
    /// What it maps.
    pub backing: Backing,
}

/// The permissions of a mapping, shown as in /proc/PID/maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// `r`
    pub read: bool,
    /// `w`
    pub write: bool,
    /// `x`
    pub execute: bool,
    /// `s`: what is written is the file's.
    pub shared: bool,
}

/// What a mapping maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Memory without a name.
    Anonymous,
    /// A file.
    File(File),
    /// The main thread's stack.
    MainStack,
    /// From `start_brk` to `brk`.
    Heap,
    /// The kernel's own code for programs.
    Vdso,
    /// Something that the kernel or the program has given this name: `[vvar]`, `[anon:heap]`.
    Named(String),
}

impl Permissions {
    /// The permissions of a sample: the bits of `enum fl_permission`, which are the same in every probe's object.
    pub fn of(bits: u32) -> Self {
        let has = |permission: fl_permission| bits & permission.0 != 0;
        Self {
            read: has(fl_permission::FL_READABLE),
            write: has(fl_permission::FL_WRITABLE),
            execute: has(fl_permission::FL_EXECUTABLE),
            shared: has(fl_permission::FL_SHARED),
        }
    }
}

impl From<MMPermissions> for Permissions {
    fn from(shown: MMPermissions) -> Self {
        Self {
            read: shown.contains(MMPermissions::READ),
            write: shown.contains(MMPermissions::WRITE),
            execute: shown.contains(MMPermissions::EXECUTE),
            shared: shown.contains(MMPermissions::SHARED),
        }
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |is: bool, letter: char| if is { letter } else { '-' };
        let (read, write, execute) = (letter(self.read, 'r'), letter(self.write, 'w'), letter(self.execute, 'x'));
        write!(f, "{read}{write}{execute}{}", if self.shared { 's' } else { 'p' })
    }
}

impl Region {
    /// The mapping of a sample, whichever probe's. `permissions`: `enum fl_permission`.
    pub(crate) fn sampled((start, end): (u64, u64), permissions: u32, file_offset: u64, backing: Backing) -> Self {
        let file_offset = if matches!(backing, Backing::File(_)) { file_offset } else { 0 };
        Self { start, end, permissions: Permissions::of(permissions), file_offset, backing }
    }

    /// The mapping that a crash's sample describes, whose files are `files`. `None` means that there is none.
    pub fn of(raw: &fl_crash, vma: &fl_vma, files: &[File]) -> Option<Self> {
        let backing = || backing(raw, vma, files);
        (vma.vm_end != 0)
            .then(|| Self::sampled((vma.vm_start, vma.vm_end), vma.permissions.0, vma.file_offset, backing()))
    }

    /// Does it hold the address?
    pub fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Anonymous memory without permissions: a guard, or a reservation.
    pub fn is_guard(&self) -> bool {
        let Permissions { read, write, execute, .. } = self.permissions;
        !read && !write && !execute && self.backing == Backing::Anonymous
    }

    /// The file behind it.
    pub fn file(&self) -> Option<&File> {
        match &self.backing {
            Backing::File(file) => Some(file),
            _ => None,
        }
    }

    /// The last field of its line in /proc/PID/maps. `None` means anonymous memory, or that the file's path isn't known.
    pub fn name(&self) -> Option<String> {
        match &self.backing {
            Backing::File(file) => file.name(),
            Backing::Vdso => Some("[vdso]".to_owned()),
            Backing::Heap => Some("[heap]".to_owned()),
            Backing::MainStack => Some("[stack]".to_owned()),
            Backing::Named(name) => Some(name.clone()),
            Backing::Anonymous => None,
        }
    }
}

/// A line of /proc/PID/maps.
impl From<&MemoryMap> for Region {
    fn from(map: &MemoryMap) -> Self {
        let name = match &map.pathname {
            MMapPath::Path(path) => Some(path.to_string_lossy().into_owned()),
            MMapPath::Vsys(key) => Some(format!("/SYSV{key:08x}{DELETED}")),
            MMapPath::Other(name) => Some(format!("[{name}]")),
            _ => None,
        };
        let backing = match (&map.pathname, name) {
            (_, Some(name)) if map.inode != 0 => {
                let id = FileId::new(map.dev.0, map.dev.1, map.inode);
                Backing::File(File { id: Some(id), ..File::named(&name) })
            }
            (_, Some(name)) => Backing::Named(name),
            (MMapPath::Heap, _) => Backing::Heap,
            (MMapPath::Stack, _) => Backing::MainStack,
            (MMapPath::Vdso, _) => Backing::Vdso,
            _ => Backing::Anonymous,
        };
        let (start, end) = map.address;
        Self { start, end, permissions: map.perms.into(), file_offset: map.offset, backing }
    }
}

/// As fs/proc/task_mmu.c, get_vma_name(), decides it.
fn backing(raw: &fl_crash, vma: &fl_vma, files: &[File]) -> Backing {
    if let Some(index) = vma.file.checked_sub(1) {
        return Backing::File(files.get(index as usize).cloned().unwrap_or_default());
    }
    if raw.vdso != 0 && vma.vm_start == raw.vdso {
        return Backing::Vdso;
    }
    if vma.vm_start < raw.brk && vma.vm_end > raw.start_brk {
        return Backing::Heap;
    }
    if vma.vm_start <= raw.start_stack && vma.vm_end >= raw.start_stack {
        return Backing::MainStack;
    }
    Backing::Anonymous
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_those_of_proc() {
        let of = |all: &[fl_permission]| Permissions::of(all.iter().fold(0, |bits, one| bits | one.0)).to_string();
        let (read, write) = (fl_permission::FL_READABLE, fl_permission::FL_WRITABLE);
        assert_eq!(of(&[]), "---p");
        assert_eq!(of(&[read, fl_permission::FL_EXECUTABLE]), "r-xp");
        assert_eq!(of(&[read, write, fl_permission::FL_SHARED]), "rw-s");
        assert_eq!(of(&[read, write, fl_permission::FL_GROWS_DOWN]), "rw-p");
    }

    #[test]
    fn a_mapping_is_called_as_in_proc() {
        let raw = fl_crash { vdso: 0x9000, start_brk: 0x1000, brk: 0x3000, start_stack: 0x7800, ..fl_crash::default() };
        let vma = |start: u64, file: u32| fl_vma { vm_start: start, vm_end: start + 0x1000, file, ..fl_vma::default() };
        let file = File { path: Some("/x".to_owned()), is_deleted: true, ..File::default() };
        let name = |vma: &fl_vma| Region::of(&raw, vma, std::slice::from_ref(&file)).unwrap().name();
        assert_eq!(name(&vma(0x9000, 0)).as_deref(), Some("[vdso]"));
        assert_eq!(name(&vma(0x2000, 0)).as_deref(), Some("[heap]"));
        assert_eq!(name(&vma(0x7000, 0)).as_deref(), Some("[stack]"));
        assert_eq!(name(&vma(0x5000, 0)), None);
        assert_eq!(name(&vma(0x5000, 1)).as_deref(), Some("/x (deleted)"));
        assert_eq!(name(&vma(0x5000, 2)), None, "the sample has no such file");
        assert_eq!(Region::of(&raw, &fl_vma::default(), &[]), None);
    }
}
