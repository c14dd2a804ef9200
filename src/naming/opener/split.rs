//! What a compiler or a packer has left of a file's debug information elsewhere (split DWARF). The path of a unit is in the file, so that whoever
//! made the file has chosen it.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{StatVfsMountFlags, fstatvfs};
use serde::{Deserialize, Serialize};

use super::folders;
use super::place::Place;
use super::relatives::{self, Search};
use crate::symbol::{place_of, reopen};

/// What stands behind the path of a file in that of its package.
pub(super) const PACKAGE: &[u8] = b".dwp";

/// Who owns a file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::naming) struct FileOwner {
    /// As the host numbers it.
    uid: u32,
    /// Only on this device, because whoever has mounted it says who owns what is on it. `None` means anywhere.
    only_on: Option<u64>,
}

impl FileOwner {
    pub(in crate::naming) fn of(file: &File, metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), only_on: (!is_hosts(file)).then(|| metadata.dev()) }
    }
}

/// Is it in a file system that no user has brought along? Of such a one root seems to own what that user has made. What users may mount (FUSE,
/// removable disks, images) has no setuid programs.
pub(super) fn is_hosts(file: &File) -> bool {
    fstatvfs(file).is_ok_and(|system| !system.f_flag.contains(StatVfsMountFlags::NOSUID))
}

/// What lies at the path, as the process sees it, if it gives nothing away: it has the same owner as the file, or everybody may read it. `owner`:
/// `None` means that the file's isn't known.
pub(super) fn find(search: &Search<'_>, owner: Option<FileOwner>) -> Option<File> {
    let places = if search.path.is_absolute() { relatives::by_path(search) } else { Vec::new() };
    // Not the host's files for a container, which may have chosen a path there.
    let mut places = places.iter().filter(|place| search.same_mounts || !matches!(place, Place::Host(_)));
    places.find_map(|place| {
        let looked_at = place.look(search.process, search.same_mounts)?;
        looked_at.metadata().ok().filter(|metadata| is_allowed(&looked_at, metadata, owner))?;
        Some(reopen(&looked_at)?.0)
    })
}

fn is_allowed(file: &File, metadata: &Metadata, owner: Option<FileOwner>) -> bool {
    let is_owners = || {
        owner.is_some_and(|owner| {
            metadata.uid() == owner.uid && owner.only_on.is_none_or(|device| device == metadata.dev())
        })
    };
    let is_public = || place_of(file).is_some_and(|place| folders::is_trusted(&place, metadata, false));
    metadata.is_file() && (is_owners() || is_public())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::path::Path;

    use super::*;
    use crate::evidence::FileId;
    use crate::symbol::{FileRequest, Holder, Usage};

    #[test]
    fn only_what_the_owner_has_is_opened() {
        let folder = std::env::temp_dir().join(format!("faultline-split-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let unit = folder.join("unit.dwo");
        std::fs::write(&unit, b"x").unwrap();
        std::fs::set_permissions(&unit, PermissionsExt::from_mode(0o600)).unwrap();
        let wanted = FileRequest {
            path: None,
            build_id: None,
            id: FileId::of(&std::fs::metadata(&unit).unwrap()),
            is_deleted: false,
            usage: Usage::Code { mapped: None, is_executable: true },
            refused: None,
        };
        let nobody = Holder { pid: u32::MAX, tid: u32::MAX, parent: u32::MAX, mount_namespace: 1 };
        let find = |path: &Path, same_mounts, uid, only_on| {
            let search = Search { wanted: &wanted, process: nobody, path, same_mounts };
            super::find(&search, Some(FileOwner { uid, only_on })).is_some()
        };
        chown(&unit, Some(60_000), None).unwrap();
        assert!(find(&unit, true, 60_000, None));
        assert!(!find(&unit, true, 60_001, None) && !find(&unit, true, 0, None), "another's");
        assert!(!find(&unit, false, 60_000, None), "in other mounts");
        let device = std::fs::metadata(&unit).unwrap().dev();
        assert!(find(&unit, true, 60_000, Some(device)) && !find(&unit, true, 60_000, Some(device + 1)));
        assert!(!find(&folder, true, 0, None) && !find(Path::new("unit.dwo"), true, 60_000, None), "no file, no path");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
