//! The ways to a file whose process is dying or dead: through its own mounts, and through processes that live on.
//!
//! Whether a file found here is the right one is decided elsewhere, by its device and inode.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mounts;
use super::place::{Place, is_in};
use crate::evidence::{DELETED, FileId};
use crate::naming::maps::{self, process};
use crate::symbol::{FileRequest, Holder, Usage};

/// How many processes are looked at for one file.
const PROCESSES_MAX: usize = 256;

/// So many of them that seem to have it are tried.
const TRIED_MAX: usize = 8;

/// The mappings of so many of them are read, which takes longer than to look at their executables.
const MAPS_MAX: usize = 32;

/// How often in a second all processes are looked at, for all files together.
const LOOKS_MAX: usize = 16;

/// A file to be looked for, and whose it was.
pub(super) struct Search<'a> {
    pub(super) wanted: &'a FileRequest,
    pub(super) process: Holder,
    /// Absolute, as the process saw it.
    pub(super) path: &'a Path,
    /// Is the mount namespace ours? Then the path is tried first; else last, because it is rarely right.
    pub(super) same_mounts: bool,
}

/// Limits how often other processes are looked at: in a storm of crashes they are the same each time.
#[derive(Default)]
pub(super) struct Relatives {
    second: Option<Instant>,
    looks: usize,
    failed: HashSet<FileId>,
}

impl Relatives {
    /// May the processes be looked at for this file?
    pub(super) fn may_look(&mut self, wanted: &FileRequest) -> bool {
        if self.second.is_none_or(|second| second.elapsed() >= Duration::from_secs(1)) {
            *self = Self { second: Some(Instant::now()), ..Self::default() };
        }
        let may = self.looks < LOOKS_MAX && !self.failed.contains(&wanted.id);
        self.looks += usize::from(may);
        may
    }

    /// No process led to this file: don't look for it again within the second.
    pub(super) fn failed(&mut self, wanted: &FileRequest) {
        self.failed.insert(wanted.id);
    }
}

/// Places by the file's name: as we see it, and as the process and its parent see it.
pub(super) fn by_path(search: &Search<'_>) -> Vec<Place> {
    let below = search.path.strip_prefix("/").ok();
    let through = |pid: u32| below.map(|below| Place::Within(pid, below.to_owned()));
    let plain = |wanted: bool| wanted.then(|| Place::Host(search.path.to_owned()));
    // A service without write access has a mount namespace of its own that shows the host's files. So our own path is tried in any case;
    // the inode decides.
    let by_name = [
        plain(search.same_mounts),
        through(search.process.tid),
        through(search.process.parent),
        plain(!search.same_mounts),
    ];
    // An unlinked file can be had only from the process, as long as it takes to die: it is tried first.
    let mut places: Vec<Place> = Vec::new();
    if search.wanted.is_deleted {
        places.extend(of_process(search.process.tid, search.wanted));
    }
    places.extend(by_name.into_iter().flatten());
    places
}

/// Places through the process itself and its parent, whatever the file's name is now.
pub(super) fn near(search: &Search<'_>) -> Vec<Place> {
    let Holder { tid, parent, .. } = search.process;
    let mut places = of_process(tid, search.wanted);
    places.extend(of_other(parent, search));
    // A container's root is mounted on the host, too, and remains there when the container's mounts have gone with its last process.
    if search.wanted.id.major() == 0
        && !search.same_mounts
        && let Ok(below) = search.path.strip_prefix("/")
    {
        places.extend(mounts::points(search.wanted.id).into_iter().map(|point| Place::Host(point.join(below))));
    }
    // A process with a root of its own (chroot) sees the end of the path.
    for pid in [tid, parent] {
        let mut rest = search.path.components();
        rest.next();
        while rest.next().is_some() && !rest.as_path().as_os_str().is_empty() {
            places.push(Place::Within(pid, rest.as_path().to_owned()));
        }
    }
    places
}

/// Places through other living processes: those of the same executable, and those of the same mount namespace. The nearest pids come
/// first, because they were started at the same time, or by the same parent.
pub(super) fn far<'a>(search: &'a Search<'_>) -> impl Iterator<Item = Place> + 'a {
    let pids = pids(search.process.pid);
    let (mut executed, mut mounts) = (TRIED_MAX, TRIED_MAX);
    let is_library = matches!(search.wanted.usage, Usage::Code { is_executable: false, .. });
    pids.into_iter().enumerate().flat_map(move |(index, pid)| {
        let mut places = Vec::new();
        if executed > 0 && (!is_library || index < MAPS_MAX) {
            places = of_other(pid, search);
            executed -= usize::from(!places.is_empty());
        }
        if mounts > 0 && !search.same_mounts && is_in(pid, search.process.mount_namespace) {
            mounts -= 1;
            let below = search.path.strip_prefix("/").ok();
            places.extend(below.map(|below| Place::Within(pid, below.to_owned())));
        }
        places
    })
}

/// Living processes in the mounts of one that may be dead, the nearest pids first.
pub(super) fn in_mounts_of(holder: Holder) -> impl Iterator<Item = u32> {
    let pids = pids(holder.pid).into_iter().filter(move |&pid| is_in(pid, holder.mount_namespace));
    pids.take(TRIED_MAX)
}

/// Living processes other than this one, those first that were started at about the same time or by the same parent.
fn pids(nearest: u32) -> Vec<u32> {
    let mut pids = maps::pids();
    pids.retain(|&pid| pid != nearest);
    pids.sort_by_key(|&pid| pid.abs_diff(nearest));
    pids.truncate(PROCESSES_MAX);
    pids
}

/// The file as the process itself has it open, to run it.
fn of_process(pid: u32, wanted: &FileRequest) -> Vec<Place> {
    let Usage::Code { mapped, is_executable } = wanted.usage else { return Vec::new() };
    let exe = is_executable.then(|| process(pid).join("exe"));
    let mapped = mapped.map(|(start, end)| process(pid).join(format!("map_files/{start:x}-{end:x}")));
    exe.into_iter().chain(mapped).map(|link| Place::Link(pid, link)).collect()
}

/// The file as another process has it open, elsewhere or not at all.
fn of_other(pid: u32, search: &Search<'_>) -> Vec<Place> {
    let exe = process(pid).join("exe");
    if let Usage::Code { is_executable: true, .. } = search.wanted.usage {
        // Compared as text: a look at the file itself may ask anybody's file system, which may take its time.
        let is_it = fs::read_link(&exe).is_ok_and(|link| is_named(link.as_os_str(), search.path));
        return is_it.then_some(Place::Link(pid, exe)).into_iter().collect();
    }
    mapped_by(pid, search).map(|link| Place::Link(pid, link)).into_iter().collect()
}

/// A link in /proc is text, with an addition if the file is unlinked.
fn is_named(link: &OsStr, path: &Path) -> bool {
    let link = link.as_bytes();
    link.strip_suffix(DELETED.as_bytes()).unwrap_or(link) == path.as_os_str().as_bytes()
}

/// The path in /proc/PID/map_files of the file's code in a process; `None` means that the process has none of it.
fn mapped_by(pid: u32, search: &Search<'_>) -> Option<PathBuf> {
    let mut found = None;
    maps::each_code(pid, |code| {
        // Its device may have another number here.
        if code.id.inode != search.wanted.id.inode && !is_named(OsStr::from_bytes(code.name), search.path) {
            return ControlFlow::Continue(());
        }
        found = Some(code.link(pid));
        ControlFlow::Break(())
    });
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn wanted(inode: u64, usage: Usage) -> FileRequest {
        FileRequest {
            path: None,
            build_id: None,
            id: FileId { inode, device: 0 },
            is_deleted: true,
            usage,
            refused: None,
        }
    }

    fn search<'a>(wanted: &'a FileRequest, path: &'a Path) -> Search<'a> {
        let process = Holder { pid: 1 << 30, tid: 1 << 30, parent: 1 << 30, mount_namespace: 1 };
        Search { wanted, process, path, same_mounts: true }
    }

    #[test]
    fn a_storm_looks_once_a_second() {
        let (one, other) = (wanted(1, Usage::Data), wanted(2, Usage::Data));
        let mut relatives = Relatives::default();
        assert!(relatives.may_look(&one));
        relatives.failed(&one);
        assert!(!relatives.may_look(&one) && relatives.may_look(&other));
        let looks = (0..100).filter(|_| relatives.may_look(&other)).count();
        assert_eq!(looks, LOOKS_MAX - 2);
        relatives.second = Instant::now().checked_sub(Duration::from_secs(2));
        assert!(relatives.may_look(&one));
    }

    #[test]
    fn a_living_process_leads_to_its_files() {
        let exe = std::env::current_exe().unwrap();
        let inode = fs::metadata(&exe).unwrap().ino();
        let own = std::process::id();
        let code = |is_executable| Usage::Code { mapped: None, is_executable };
        let link = process(own).join("exe");
        assert_eq!(of_other(own, &search(&wanted(0, code(true)), &exe)), [Place::Link(own, link)]);
        for (inode, path) in [(inode, Path::new("/other")), (0, exe.as_path())] {
            let [Place::Link(_, mapped)] = &of_other(own, &search(&wanted(inode, code(false)), path))[..] else {
                panic!("{inode} {path:?}");
            };
            assert_eq!(fs::metadata(mapped).unwrap().ino(), fs::metadata(&exe).unwrap().ino());
        }
        assert!(of_other(own, &search(&wanted(0, code(false)), Path::new("/nonexistent"))).is_empty());
    }

    #[test]
    fn a_chroot_sees_the_end_of_the_path() {
        let places = near(&search(&wanted(1, Usage::Data), Path::new("/jail/bin/x")));
        assert!(places.contains(&Place::Within(1 << 30, "bin/x".into())), "{places:?}");
        assert!(places.contains(&Place::Within(1 << 30, "x".into())), "{places:?}");
        assert!(!places.contains(&Place::Within(1 << 30, "".into())), "{places:?}");
    }
}
