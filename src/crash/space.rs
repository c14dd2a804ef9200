//! Room on the disk of a file, for a page that could not be had.

use nix::sys::statvfs::statvfs;
use procfs::process::Process;

use crate::evidence::FileId;

/// Has the file system of this device no room? `None` means that it isn't mounted where we see it, or is none of a disk: to ask one of a
/// network may take for ever.
pub(super) fn is_full(device: u64) -> Option<bool> {
    let id = FileId { inode: 0, device };
    if id.major() == 0 {
        return None;
    }
    let mounts = Process::myself().and_then(|me| me.mountinfo()).ok()?;
    let mount = mounts.into_iter().find(|mount| mount.majmin == id.device_text())?;
    // Some is kept for root.
    Some(statvfs(&mount.mount_point).ok()?.blocks_available() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::FileId;

    #[test]
    fn our_own_disk_has_room() {
        let own = FileId::of(&std::fs::metadata(std::env::current_exe().unwrap()).unwrap());
        assert_ne!(is_full(own.device), Some(true));
        assert_eq!(is_full(21), None, "no disk");
    }
}
