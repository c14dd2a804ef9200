//! The kernel's code in each process: the vDSO, the same in all 64-bit processes of one boot.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use procfs::process::{MMapPath, Process};

use super::MappedFile;

/// Ours. `None` means that there is none.
pub(super) fn bytes() -> Option<&'static [u8]> {
    let maps = Process::myself().and_then(|me| me.maps()).ok()?;
    let (start, end) = maps.iter().find(|map| map.pathname == MMapPath::Vdso)?.address;
    let length = usize::try_from(end.checked_sub(start)?).ok()?;
    // SAFETY: the kernel has just reported this mapping. The vDSO is readable, stays the same as long as the process runs, and
    // no other code unmaps it.
    Some(unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(start as usize), length) })
}

/// A copy, as a file whose functions can be named. `None` means that there is none, or no room for it.
pub(crate) fn copy() -> Option<MappedFile> {
    let file = File::from(memfd_create(c"vdso", MFdFlags::MFD_CLOEXEC).ok()?);
    file.write_all_at(bytes()?, 0).ok()?;
    // No record has a file of this number.
    MappedFile::of(file, usize::MAX)
}
