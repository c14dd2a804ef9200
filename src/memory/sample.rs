//! Readings of a sample of the probe: the range that it is about, its mapping, and what it changes in a process's account.

use super::space::Space;
use crate::evidence::{Backing, File, Permissions, Region};
use crate::page;
use crate::probe::abi::memory::{fl_call, fl_mapping, fl_own_limit};

/// The range that a record is about. A segment of shared memory and the heap are as long as their mapping.
pub(super) fn range(mapping: &fl_mapping) -> (u64, u64) {
    let is_whole = matches!(mapping.call, fl_call::FL_CALL_SHMAT | fl_call::FL_CALL_BRK);
    if let Some(vma) = mapping.vma().filter(|_| is_whole) {
        return (vma.vm_start, vma.vm_end);
    }
    // A length that wraps around is one that the kernel has refused.
    (mapping.address, mapping.address.checked_add(mapping.length).unwrap_or(mapping.address))
}

/// The address up to which the kernel program has looked for pages of a record's range.
pub(super) fn looked_to(mapping: &fl_mapping, start: u64, end: u64) -> u64 {
    const PAGES_MAX: u64 = fl_own_limit::FL_LIMIT_PAGES.0 as u64;
    // If it looked at the first page of a new mapping, it has looked at all of it.
    let is_fresh = mapping.call == fl_call::FL_CALL_MMAP && mapping.pages == 0;
    if is_fresh { end } else { end.min(start.saturating_add(PAGES_MAX * page::size())) }
}

/// The mapping of a record as user space would see it.
pub(super) fn region_of(mapping: &fl_mapping) -> Region {
    let vma = &mapping.vma;
    let backing = match mapping.file() {
        Some(file) => Backing::File(File::sampled(mapping.path().as_deref(), file.flags.0, file.inode, file.device)),
        // Executable memory of a new program that belongs to no file is the kernel's own.
        None if mapping.call == fl_call::FL_CALL_EXEC && !Permissions::of(vma.permissions.0).write => Backing::Vdso,
        None => Backing::Anonymous,
    };
    Region::sampled((vma.vm_start, vma.vm_end), vma.permissions.0, vma.file_offset, backing)
}

/// Keeps account of a process's executable memory.
pub(super) fn account(space: &mut Space, mapping: &fl_mapping, is_code: bool) {
    let (start, end) = range(mapping);
    const MREMAP_DONTUNMAP: u64 = 4;
    if mapping.call == fl_call::FL_CALL_MREMAP && mapping.arguments[3] & MREMAP_DONTUNMAP == 0 {
        let old = mapping.arguments[0];
        space.cover.remove(old, old.saturating_add(mapping.arguments[1]));
    }
    match mapping.call {
        fl_call::FL_CALL_MEMFD | fl_call::FL_CALL_MADVISE | fl_call::FL_CALL_EXIT => {}
        _ if is_code => space.cover.add(start, end),
        _ => space.cover.remove(start, end),
    }
}
