//! Opens the files of a process that died, and believes only the very files that it had mapped. It parses none of them.
//!
//! A file is the one that was mapped if its device and inode are those that the kernel program sent: no path, link, mount or build id of
//! the process's own leads to another.

mod fetched;
mod folders;
pub(super) mod mounts;
mod overlay;
mod perf_map;
mod place;
mod relatives;
mod split;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::fstatfs;

use self::fetched::Fetched;
use self::folders::{DebugFolders, Stripped};
use self::place::Place;
use self::relatives::{Relatives, Search};
pub(super) use self::split::FileOwner;
use super::search::SearchPath;
use crate::debuginfod::Kind;
use crate::evidence::Failure;
use crate::host;
use crate::symbol::{FileRequest, Open, Opening, Usage, changed_ns, open_regular, reopen};

/// On these file systems stat(2) shows another device for a mapped file than the kernel does.
const HAS_OTHER_DEVICE: [i64; 2] = [libc::BTRFS_SUPER_MAGIC, libc::OVERLAYFS_SUPER_MAGIC];

/// Opens the files of one record after another.
pub(crate) struct Opener {
    folders: DebugFolders,
    fetched: Fetched,
    /// Inode number of our mount namespace. `None` means unknown; then no path is taken to be ours.
    mount_namespace: Option<u64>,
    relatives: Relatives,
    /// The record in work.
    opening: Option<Opening>,
    /// By number: the files of it that were opened.
    opened: Vec<Option<Opened>>,
    /// By number: copies of files of it that have gone while processes ran them.
    kept: HashMap<usize, (FileOwner, File)>,
}

/// How a file was come by.
#[derive(Clone, Debug)]
struct Opened {
    /// The folder of the host's that it is in. `None` means that it was not found by its name there.
    folder: Option<PathBuf>,
    /// Nobody but root can have written it.
    is_roots: bool,
    /// Whose it is. `None` means that this isn't known.
    owner: Option<FileOwner>,
}

impl Opener {
    /// Looks for debug files in `search` before the system's own folder.
    pub(crate) fn new(search: impl Into<SearchPath>) -> Self {
        let SearchPath { debug_dirs, cache } = search.into();
        Self {
            folders: DebugFolders::new(debug_dirs),
            fetched: Fetched(cache),
            mount_namespace: host::mount_namespace(),
            relatives: Relatives::default(),
            opening: None,
            opened: Vec::new(),
            kept: HashMap::new(),
        }
    }

    /// From now on files are asked for by their numbers in `opening`.
    pub(crate) fn begin(&mut self, opening: Opening) {
        self.opened = vec![None; opening.files.len()];
        self.opening = Some(opening);
        self.kept.clear();
    }

    /// These are copies of files of the record that has begun.
    pub(super) fn keep(&mut self, copies: impl Iterator<Item = ((usize, FileOwner), File)>) {
        self.kept.extend(copies.map(|((number, owner), copy)| (number, (owner, copy))));
    }

    /// A copy of what is deleted comes before all places: none of their paths leads to it, but another file may have its number by now.
    fn find_or_kept(
        &mut self,
        number: usize,
        search: &Search<'_>,
        taken_ns: i128,
    ) -> Result<Option<(File, Opened)>, Failure> {
        let kept = self.kept.get(&number).and_then(|(owner, copy)| Some(copied(copy.try_clone().ok()?, *owner)));
        if kept.is_some() && search.wanted.is_deleted {
            return Ok(kept);
        }
        match self.find(search, taken_ns) {
            Ok(None) | Err(Failure::OtherFile) if kept.is_some() => Ok(kept),
            found => found,
        }
    }

    fn find(&mut self, search: &Search<'_>, taken_ns: i128) -> Result<Option<(File, Opened)>, Failure> {
        // A file that lies where the wanted one should.
        let mut has_other = false;
        let mut attempt = |place: Place| {
            let opened = open_same(&place, search, taken_ns);
            has_other |= matches!(opened, Tried::Other);
            match opened {
                Tried::Same(file, opened) => Some((file, opened)),
                Tried::Other | Tried::Nothing => None,
            }
        };
        if let Some(found) = relatives::by_path(search).into_iter().find_map(&mut attempt) {
            return Ok(Some(found));
        }
        if search.wanted.usage != Usage::Data {
            if let Some(found) = relatives::near(search).into_iter().find_map(&mut attempt) {
                return Ok(Some(found));
            }
            if self.relatives.may_look(search.wanted) {
                if let Some(found) = relatives::far(search).find_map(&mut attempt) {
                    return Ok(Some(found));
                }
                self.relatives.failed(search.wanted);
            }
        }
        if has_other { Err(Failure::OtherFile) } else { Ok(None) }
    }
}

impl Open for Opener {
    fn mapped(&mut self, number: usize) -> Result<Option<File>, Failure> {
        let Some(opening) = self.opening.take() else { return Ok(None) };
        let found = match opening.files.get(number) {
            Some(FileRequest { refused: Some(reason), .. }) => Err(*reason),
            // Its path may be of another machine: what lies there has to have its build id.
            Some(FileRequest { usage: Usage::Recorded, .. }) => Ok(None),
            Some(wanted @ FileRequest { path: Some(path), .. }) => {
                let search = Search {
                    wanted,
                    process: opening.process,
                    path: Path::new(OsStr::from_bytes(path)),
                    same_mounts: self.mount_namespace == Some(u64::from(opening.process.mount_namespace)),
                };
                self.find_or_kept(number, &search, opening.taken_ns)
            }
            _ => Ok(None),
        };
        self.opening = Some(opening);
        let (file, opened) = found?.unzip();
        if let (Some(slot), Some(opened)) = (self.opened.get_mut(number), opened) {
            *slot = Some(opened);
        }
        Ok(file)
    }

    fn debug(&mut self, number: usize, build_id: &[u8], link: Option<&[u8]>) -> Vec<File> {
        let Some(wanted) = self.opening.as_ref().and_then(|opening| opening.files.get(number)) else {
            return Vec::new();
        };
        let opened = self.opened.get(number).and_then(Option::as_ref);
        let mut files = self.folders.open(&Stripped {
            build_id,
            path: wanted.path.as_deref().map(|path| Path::new(OsStr::from_bytes(path))),
            folder: opened.and_then(|opened| opened.folder.as_deref()),
            link,
            is_roots: opened.is_some_and(|opened| opened.is_roots),
        });
        files.extend(self.fetched.open(build_id, Kind::Debuginfo));
        files
    }

    fn perf_map(&mut self) -> Option<File> {
        let opening = self.opening.as_ref()?;
        let same_mounts = self.mount_namespace == Some(u64::from(opening.process.mount_namespace));
        perf_map::find(opening.perf_map.as_ref()?, opening.process, opening.taken_ns, same_mounts)
    }

    fn split(&mut self, number: usize, path: Option<&[u8]>) -> Option<File> {
        let opening = self.opening.as_ref()?;
        let owner = self.opened.get(number)?.as_ref().and_then(|opened| opened.owner);
        let wanted = opening.files.get(number)?;
        let packed = || Some([wanted.path.as_deref()?, split::PACKAGE].concat());
        let path = path.map_or_else(packed, |path| Some(path.to_vec()))?;
        let search = Search {
            // What was deleted is not what lies beside it.
            wanted: &FileRequest { is_deleted: false, ..wanted.clone() },
            process: opening.process,
            path: Path::new(OsStr::from_bytes(&path)),
            // Of a record all that is looked for is of this machine.
            same_mounts: wanted.usage == Usage::Recorded
                || self.mount_namespace == Some(u64::from(opening.process.mount_namespace)),
        };
        split::find(&search, owner)
    }

    fn by_build_id(&mut self, number: usize, build_id: &[u8]) -> Vec<File> {
        let wanted = self.opening.as_ref().and_then(|opening| opening.files.get(number));
        let recorded =
            wanted.filter(|wanted| wanted.usage == Usage::Recorded).and_then(|wanted| wanted.path.as_deref());
        let at_path = recorded.and_then(|path| open_regular(Path::new(OsStr::from_bytes(path))));
        if let (Some((file, metadata)), Some(slot)) = (&at_path, self.opened.get_mut(number)) {
            *slot = Some(Opened { folder: None, is_roots: false, owner: Some(FileOwner::of(file, metadata)) });
        }
        let mut files: Vec<File> = at_path.into_iter().map(|(file, _)| file).collect();
        // Before its debug file, which may not say where in the file the code is.
        files.extend(self.fetched.open(build_id, Kind::Executable));
        files.extend(self.debug(number, build_id, None));
        files
    }
}

/// A copy of ours. Who has written the file isn't known any more, so that no debug file is looked for that not everybody may read.
fn copied(copy: File, owner: FileOwner) -> (File, Opened) {
    (copy, Opened { folder: None, is_roots: false, owner: Some(owner) })
}

/// What lies at a place.
enum Tried {
    Same(File, Opened),
    Other,
    Nothing,
}

fn open_same(place: &Place, search: &Search<'_>, taken_ns: i128) -> Tried {
    let Some(looked_at) = place.look(search.process, search.same_mounts) else { return Tried::Nothing };
    let Ok(metadata) = looked_at.metadata() else { return Tried::Nothing };
    if !metadata.is_file() {
        return Tried::Other;
    }
    let wanted = search.wanted;
    let is_in_time = |metadata: &Metadata| wanted.build_id.is_some() || changed_ns(metadata) <= taken_ns;
    let is_it = |metadata: &Metadata| is_same(wanted, metadata) && is_in_time(metadata);
    let is_same = is_it(&metadata)
        || is_same_on_btrfs(wanted, &looked_at, &metadata)
        || (is_in_time(&metadata) && is_same_by_mount(wanted, place, &looked_at, &metadata));
    let file = if is_same {
        Some(looked_at)
    } else if overlay::is_overlay(&looked_at) {
        let path = match place {
            Place::Within(_, rest) => Path::new("/").join(rest),
            Place::Host(_) | Place::Link(..) => search.path.to_owned(),
        };
        overlay::layers(place, &path, search.same_mounts).find(|file| file.metadata().is_ok_and(|found| is_it(&found)))
    } else {
        None
    };
    let Some((file, metadata)) = file.as_ref().and_then(reopen) else { return Tried::Other };
    let folder = match place {
        Place::Host(path) => path.parent().map(Path::to_owned),
        Place::Within(..) | Place::Link(..) => None,
    };
    let is_roots = search.same_mounts && metadata.uid() == 0 && metadata.mode() & 0o022 == 0 && split::is_hosts(&file);
    let owner = FileOwner::of(&file, &metadata);
    Tried::Same(file, Opened { folder, is_roots, owner: Some(owner) })
}

/// Is it the inode that the process had mapped?
fn is_same(wanted: &FileRequest, metadata: &Metadata) -> bool {
    wanted.id.inode == metadata.ino() && wanted.id.stat_device() == metadata.dev()
}

/// btrfs gives each subvolume a device of its own, which the kernel program can't know, and so the same inode number to several files. A
/// file that anybody may read, and that has the build id as well, is believed there.
fn is_same_on_btrfs(wanted: &FileRequest, file: &File, metadata: &Metadata) -> bool {
    wanted.build_id.is_some()
        && wanted.id.inode == metadata.ino()
        && metadata.mode() & 0o004 != 0
        && fstatfs(file).is_ok_and(|system| system.f_type == libc::BTRFS_SUPER_MAGIC)
}

/// Overlay file systems and btrfs show another device than the kernel program sees; that of their mount is the same. As one number of an
/// inode may be that of several files there, one that not everybody may read is not believed.
fn is_same_by_mount(wanted: &FileRequest, place: &Place, file: &File, metadata: &Metadata) -> bool {
    wanted.id.inode == metadata.ino()
        && nix::sys::stat::major(metadata.dev()) == 0
        && metadata.mode() & 0o004 != 0
        && fstatfs(file).is_ok_and(|system| HAS_OTHER_DEVICE.contains(&system.f_type))
        && mounts::is_on(file, place.process(), wanted.id)
}

#[cfg(test)]
mod tests;
