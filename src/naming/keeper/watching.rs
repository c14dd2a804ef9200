//! Which files are watched, and what the kernel says of them.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;

use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::watched::{State, Watch, Watched, is_gone};
use super::{Keeper, MOUNTS_MAX, Seen, WATCHES_MAX, now_ns};
use crate::evidence::FileId;
use crate::naming::opener::mounts;
use crate::symbol::{descriptor, look};

/// File systems that answer from this machine. Others may keep whoever asks them.
const KINDS: [&str; 16] = [
    "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jfs", "overlay", "rootfs",
    "squashfs", "tmpfs", "vfat", "xfs",
];

/// File systems of which stat(2) and the kernel have different devices: one number of an inode may be that of several files.
const AMBIGUOUS: [&str; 2] = ["btrfs", "overlay"];

/// Why a file is not watched.
pub(super) enum Refusal {
    /// There are too many.
    NoRoom,
    /// It can't be, it is gone, or it is on a file system that may not answer.
    Elsewhere,
}

impl Keeper {
    /// Watches a file. It is looked at without asking its file system, until that is known.
    pub(super) fn watch(&mut self, pid: u32, user: u32, seen: Seen) -> io::Result<Result<(), Refusal>> {
        let Some(looked_at) = look(&seen.link) else { return Ok(Err(Refusal::Elsewhere)) };
        let Some((device, kind)) = self.mount_of(&looked_at, pid, &seen) else { return Ok(Err(Refusal::Elsewhere)) };
        let is_ambiguous = AMBIGUOUS.contains(&kind.as_str());
        if let Some(device) = device.filter(|_| is_ambiguous) {
            // A layer may be anybody's.
            if self.avoided.devices.contains(&device) {
                return Ok(Err(Refusal::Elsewhere));
            }
            self.copying.say_looks(device)?;
        }
        let Ok(metadata) = looked_at.metadata() else { return Ok(Err(Refusal::Elsewhere)) };
        if !metadata.is_file() || (is_ambiguous && metadata.mode() & 0o004 == 0) {
            return Ok(Err(Refusal::Elsewhere));
        }
        if !self.watching.has(user, 0) {
            return Ok(Err(Refusal::NoRoom));
        }
        let watch = match self.add_watch(&looked_at) {
            Ok(watch) => watch,
            // The user's, or the kernel's.
            Err(Errno::NOSPC | Errno::NOMEM) => return Ok(Err(Refusal::NoRoom)),
            Err(_) => return Ok(Err(Refusal::Elsewhere)),
        };
        self.last_number += 1;
        let (number, since_ns, cycle) = (self.last_number, now_ns()?, self.processes.cycle);
        let is_gone = is_gone(&seen.link, &metadata);
        let mut new = Watched::new(number, seen.id, &metadata, device);
        new.needs_build_id = kind == "btrfs";
        (new.user, new.since_ns) = (user, since_ns);
        let (watched, is_new) = self.table.add(watch, seen.id, new);
        watched.is_held(pid, seen.link, cycle);
        if is_new {
            self.watching.take(user, 0);
            if is_gone {
                watched.state = State::Asked;
                self.copying.ask(watch);
            }
        }
        Ok(Ok(()))
    }

    /// The device of a file's mount, as the kernel numbers it, and the kind of its file system. `None` means that it is not to be asked for
    /// anything.
    fn mount_of(&mut self, file: &File, pid: u32, seen: &Seen) -> Option<(Option<u64>, String)> {
        let id = mounts::id_of(file)?;
        if !self.mounts.contains_key(&id)
            && let Some(mount) = self.mounts_of_process.get_or_insert_with(|| mounts::all(Some(pid))).get(&id)
        {
            if self.mounts.len() >= MOUNTS_MAX {
                self.mounts.clear();
            }
            self.mounts.insert(id.clone(), mount.clone());
        }
        match self.mounts.get(&id) {
            Some((device, kind)) if KINDS.contains(&kind.as_str()) => Some((device_of(device), kind.clone())),
            // It is in no mount that a process could see. Another process may see it: a process may have a root of its own.
            None if seen.is_in_memory => Some((None, String::new())),
            _ => None,
        }
    }

    pub(super) fn take_events(&mut self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Vec::new();
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => events.push((event.wd(), event.events())),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
            // The rest comes in the next turn.
            if events.len() >= WATCHES_MAX {
                break;
            }
        }
        for (watch, what) in events {
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                for watch in self.table.all(|watched| watched.unwatched_ns.is_none()) {
                    self.has_no_watch(watch)?;
                }
            } else if what.intersects(ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED) {
                self.has_no_watch(watch.into())?;
            } else {
                self.ask(watch.into());
            }
        }
        Ok(())
    }

    fn add_watch(&self, file: &File) -> Result<Watch, Errno> {
        let what = WatchFlags::ATTRIB | WatchFlags::DELETE_SELF;
        inotify::add_watch(&self.inotify, descriptor(file), what).map(Watch::from)
    }

    /// The kernel watches this file no more. If it has had several names and was not run by the one that has gone last, processes run it all
    /// the same.
    fn has_no_watch(&mut self, watch: Watch) -> io::Result<()> {
        let Some(watched) = self.table.get(watch) else { return Ok(()) };
        watched.unwatched_ns = Some(now_ns()?);
        let number = Watch::try_from(watched.number).map_err(io::Error::other)?;
        self.table.change(watch, -number);
        if !self.watch_again(-number) {
            self.homeless.push(-number);
        }
        Ok(())
    }

    /// False: no process that is remembered runs it any more.
    pub(super) fn watch_again(&mut self, watch: Watch) -> bool {
        let Some((file, _)) = self.table.get(watch).and_then(|watched| watched.look()) else { return false };
        let Ok(new) = self.add_watch(&file) else { return false };
        self.table.change(watch, new);
        if let Some(watched) = self.table.get(new) {
            watched.unwatched_ns = None;
            if matches!(watched.state, State::Lies | State::Asked) {
                watched.state = State::Asked;
                self.copying.ask(new);
            }
        }
        true
    }
}

/// `major:minor`, in decimal.
fn device_of(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(FileId::new(major.parse().ok()?, minor.parse().ok()?, 0).device)
}
