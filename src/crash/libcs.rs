//! The libcs whose messages before an abort are known before anything crashes: the one that this program runs with, or if it has none,
//! because it is linked statically, those of this host. The children that name crashes look into those, as into every file that is not ours.

use std::env::consts::ARCH;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use procfs::process::{MMPermissions, MMapPath, Process};

use crate::evidence::FileId;
use crate::host;
use crate::naming::{Job, Naming, Patience};
use crate::runtime::abort_message::{self, Libcs};
use crate::symbol::{FileRequest, Holder, Opening, Usage, look_within};
use crate::time::Timestamp;

/// How long the children may take for all of them.
const WAIT: Duration = Duration::from_secs(5);

/// The first process. In a container that sees the host's processes its root is the host's, and ours is the image's.
const INIT: u32 = 1;

/// The libcs that are known. They are looked for once: the build id shows if a file has changed since.
pub(super) fn known() -> Libcs {
    static KNOWN: OnceLock<Libcs> = OnceLock::new();
    KNOWN.get_or_init(|| Libcs::with_own().unwrap_or_else(of_host)).clone()
}

/// The libcs of the first process, and those below its root and our own.
fn of_host() -> Libcs {
    let mut libcs = Libcs::default();
    let mut found = mapped(INIT);
    for pid in [INIT, std::process::id()] {
        found.extend(lying(pid));
    }
    let Ok(mut naming) = Naming::new(Vec::new()) else { return libcs };
    let mut patience = Patience::new();
    patience.begin(WAIT);
    for libc in found {
        // Several paths lead to one file.
        if libcs.has(libc.id) {
            continue;
        }
        let opening = Opening {
            process: libc.holder,
            taken_ns: Timestamp::now().unix_ns(),
            files: vec![libc.request()],
            perf_map: None,
        };
        let variable = Some((0, abort_message::VARIABLE.to_vec()));
        let named = naming.ask(Job { variable, ..Job::of_files(opening, Vec::new()) }, &mut patience);
        let build_id = named.files.into_iter().next().and_then(|file| file.build_id);
        if let (Some(build_id), Some(address)) = (build_id, named.described.variable) {
            libcs.add(libc.id, &build_id, address);
        }
    }
    libcs
}

/// A file that may be a libc.
struct Candidate {
    holder: Holder,
    path: PathBuf,
    id: FileId,
}

impl Candidate {
    fn request(&self) -> FileRequest {
        FileRequest {
            path: Some(self.path.clone().into_os_string().into_encoded_bytes()),
            build_id: None,
            id: self.id,
            is_deleted: false,
            usage: Usage::Data,
            refused: None,
        }
    }
}

/// The libc that a process runs with, as the kernel numbers the file: nothing if we may not look at the process.
fn mapped(pid: u32) -> Vec<Candidate> {
    let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
    let maps = process.and_then(|process| process.maps().ok()).map(|maps| maps.0).unwrap_or_default();
    let is_code = |map: &procfs::process::MemoryMap| map.perms.contains(MMPermissions::EXECUTE);
    let libc = maps.into_iter().filter(is_code).find_map(|map| match map.pathname {
        MMapPath::Path(path) if abort_message::is_named_libc(&path) => {
            Some(Candidate { holder: holder(pid), path, id: FileId::new(map.dev.0, map.dev.1, map.inode) })
        }
        _ => None,
    });
    libc.into_iter().collect()
}

/// The files at the places where distributions keep glibc, below the root of a process: Debian and its like, those with lib64, and the others.
fn lying(pid: u32) -> Vec<Candidate> {
    let places = [format!("lib/{ARCH}-linux-gnu/libc.so.6"), "lib64/libc.so.6".to_owned(), "lib/libc.so.6".to_owned()];
    let at = |place: &String| {
        let metadata = look_within(pid, place.as_ref(), false)?.metadata().ok()?;
        Some(Candidate { holder: holder(pid), path: PathBuf::from("/").join(place), id: FileId::of(&metadata) })
    };
    places.iter().filter_map(at).collect()
}

/// If its mount namespace can't be read, the mounts are not taken for ours, and no path of ours leads there.
fn holder(pid: u32) -> Holder {
    let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
    let mounts = process.and_then(|process| host::mount_namespace_of(&process));
    Holder { pid, tid: pid, parent: pid, mount_namespace: mounts.and_then(|id| id.try_into().ok()).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::digits;
    use crate::probe::abi::fl_file;
    use crate::symbol::Variable;

    #[test]
    fn a_program_without_a_libc_knows_that_of_its_host() {
        let own = mapped(std::process::id()).pop().unwrap();
        let wanted = Variable::of(&own.path, abort_message::VARIABLE).unwrap();
        let mut libcs = of_host();
        let file = fl_file { inode: own.id.inode, device: own.id.device as u32, ..fl_file::default() };
        assert_eq!(libcs.wanted(&file, Some(&digits(&wanted.build_id))), None, "nothing is to be learnt of it");
        let news = libcs.take_news();
        let known = news.iter().find(|(libc, _)| (libc.inode, libc.device) == (wanted.inode, wanted.device)).unwrap();
        assert_eq!(known.1, wanted.address);
        let mut ids: Vec<(u64, u32)> = news.iter().map(|(libc, _)| (libc.inode, libc.device)).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), news.len(), "each file once");
    }
}
