//! The files that processes run, as far as they are watched.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::evidence::{DELETED, FileId};
use crate::symbol::look;

/// So many of the processes that run a file are remembered.
const HOLDERS_MAX: usize = 3;

/// A file is known by so many ids.
const IDS_MAX: usize = 8;

/// A file that is watched: as long as it is, no other file has its number.
pub(super) struct Watched {
    /// As it is known to whoever keeps the copies.
    pub(super) number: u64,
    /// By which the kernel may mean it: overlay file systems and btrfs number devices in more than one way. The first is that of
    /// /proc/PID/maps.
    pub(super) ids: Vec<FileId>,
    /// The device of its mount, as the kernel numbers it. `None` means that it is in no mount.
    pub(super) device: Option<u64>,
    /// As stat(2) has it.
    stat: FileId,
    /// When its inode was made, where the file system says it: a file that was made since may have the same number.
    born: Option<SystemTime>,
    /// Several files there may have one number: only the build id tells them apart.
    pub(super) needs_build_id: bool,
    /// The user of the process that it was seen in first.
    pub(super) user: u32,
    /// Since when it has been watched, CLOCK_BOOTTIME.
    pub(super) since_ns: u64,
    /// When all processes have been looked at so often, it was seen in one last.
    pub(super) cycle: u64,
    pub(super) state: State,
    /// Since when it is not watched, CLOCK_BOOTTIME, because the kernel took its last name for its end: whether a process runs it is to be
    /// found out. `None` means that it is watched.
    pub(super) unwatched_ns: Option<u64>,
    /// Processes that run it, and the kernel's links to it, the newest last.
    holders: Vec<(u32, PathBuf)>,
}

/// What has been done about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It lies where it did.
    Lies,
    /// Something has happened to it: it is to be looked at.
    Asked,
    /// It has gone, and there is a copy of so many bytes.
    Copied(u64),
    /// It has gone, and there is none.
    Lost,
}

impl Watched {
    /// `device`: that of its mount, as the kernel numbers it.
    pub(super) fn new(number: u64, seen: FileId, metadata: &Metadata, device: Option<u64>) -> Self {
        let stat = FileId::of(metadata);
        let mut ids = vec![seen, stat];
        ids.extend(device.map(|device| FileId { device, ..stat }));
        Self {
            number,
            ids,
            device,
            stat,
            born: metadata.created().ok(),
            needs_build_id: false,
            user: 0,
            since_ns: 0,
            cycle: 0,
            state: State::Lies,
            unwatched_ns: None,
            holders: Vec::new(),
        }
    }

    /// This process runs it.
    pub(super) fn is_held(&mut self, pid: u32, link: PathBuf, cycle: u64) {
        self.cycle = cycle;
        self.holders.retain(|(holder, _)| *holder != pid);
        if self.holders.len() >= HOLDERS_MAX {
            self.holders.remove(0);
        }
        self.holders.push((pid, link));
    }

    /// The file, opened to be looked at only, through a process that runs it, and whether it is gone from where it lay. `None` means that
    /// none of those that are remembered does any more.
    pub(super) fn look(&self) -> Option<(File, bool)> {
        self.holders.iter().rev().find_map(|(_, link)| {
            let file = look(link)?;
            let metadata = file.metadata().ok()?;
            if FileId::of(&metadata) != self.stat || metadata.created().ok() != self.born {
                return None;
            }
            let is_gone = is_gone(link, &metadata);
            Some((file, is_gone))
        })
    }
}

/// Has the file that this link of the kernel's leads to gone from where the process found it? A package manager leaves it another name for a
/// while.
pub(super) fn is_gone(link: &Path, metadata: &Metadata) -> bool {
    metadata.nlink() == 0
        || fs::read_link(link).is_ok_and(|name| name.as_os_str().as_bytes().ends_with(DELETED.as_bytes()))
}

/// A watch of the kernel's, or a number below 0 in place of one.
pub(super) type Watch = i64;

/// All of them, by their watch.
#[derive(Default)]
pub(super) struct Table {
    by_watch: HashMap<Watch, Watched>,
    /// By each id that /proc/PID/maps has of them.
    watches: HashMap<FileId, Watch>,
}

impl Table {
    /// The file that /proc/PID/maps has this id of.
    pub(super) fn seen(&mut self, id: FileId) -> Option<&mut Watched> {
        self.by_watch.get_mut(self.watches.get(&id)?)
    }

    pub(super) fn get(&mut self, watch: Watch) -> Option<&mut Watched> {
        self.by_watch.get_mut(&watch)
    }

    /// A file that has come to be watched. It may be one that was, by another id: then it is that one.
    pub(super) fn add(&mut self, watch: Watch, seen: FileId, new: Watched) -> (&mut Watched, bool) {
        let is_new = !self.by_watch.contains_key(&watch);
        self.watches.insert(seen, watch);
        let watched = self.by_watch.entry(watch).or_insert(new);
        if watched.ids.len() < IDS_MAX && !watched.ids.contains(&seen) {
            watched.ids.push(seen);
        }
        (watched, is_new)
    }

    pub(super) fn remove(&mut self, watch: Watch) -> Option<Watched> {
        self.watches.retain(|_, other| *other != watch);
        self.by_watch.remove(&watch)
    }

    /// A file has another watch now.
    pub(super) fn change(&mut self, watch: Watch, new: Watch) {
        for other in self.watches.values_mut().filter(|other| **other == watch) {
            *other = new;
        }
        if let Some(watched) = self.by_watch.remove(&watch) {
            self.by_watch.insert(new, watched);
        }
    }

    /// The watches of all files of which this is true.
    pub(super) fn all(&self, wanted: impl Fn(&Watched) -> bool) -> Vec<Watch> {
        self.by_watch.iter().filter(|(_, watched)| wanted(watched)).map(|(watch, _)| *watch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_each_id_whatever_its_watch() {
        let own = fs::metadata("/proc/self/exe").unwrap();
        let [first, second] = [FileId::new(8, 1, 7), FileId::new(0, 50, 7)];
        let mut table = Table::default();
        let (_, is_new) = table.add(3, first, Watched::new(1, first, &own, None));
        let (watched, is_second_new) = table.add(3, second, Watched::new(2, second, &own, Some(9)));
        assert_eq!((is_new, is_second_new, watched.number), (true, false, 1), "one inode has one watch");
        assert_eq!(watched.ids, [first, FileId::of(&own), second]);
        table.change(3, -1);
        assert!(table.get(3).is_none() && table.get(-1).is_some());
        assert!([first, second].into_iter().all(|id| table.seen(id).is_some_and(|watched| watched.number == 1)));
        table.remove(-1);
        assert!(table.seen(first).is_none() && table.all(|_| true).is_empty());
    }

    #[test]
    fn a_file_is_looked_at_through_a_process_that_runs_it() {
        let own = fs::metadata("/proc/self/exe").unwrap();
        let mut watched = Watched::new(1, FileId::of(&own), &own, None);
        assert!(watched.look().is_none(), "nobody runs it");
        watched.is_held(1, "/proc/self/exe".into(), 4);
        // Another one, which may have come to have the number of a process that ran it.
        watched.is_held(2, "/proc/self/status".into(), 5);
        assert!(watched.look().is_some_and(|(_, is_gone)| !is_gone));
        for pid in 3..10 {
            watched.is_held(pid, "/nonexistent".into(), 6);
        }
        assert!(watched.look().is_none() && watched.holders.len() == HOLDERS_MAX);
    }
}
