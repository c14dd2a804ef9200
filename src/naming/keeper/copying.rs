//! The copies that the keeper makes, and whoever gets them: the process that counts holds them, this one only makes them.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::room::Room;
use super::said::{COPIES_MAX, Copied, Said};
use super::watched::{State, Watch, Watched};
use crate::naming::opener::FileOwner;
use crate::naming::passing::pass;
use crate::symbol::{copy_whole, is_elf, reopen};

/// How much all copies may take.
const BYTES_MAX: u64 = 128 << 20;

/// A longer file is not copied.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How long a copy is kept when no process runs the file any more: the record of the last one may still wait for its names.
const REST: Duration = Duration::from_secs(120);

const NO_FILES: [File; 0] = [];

pub(super) struct Copying {
    parent: OwnedFd,
    /// The watches of files that something has happened to.
    asked: VecDeque<Watch>,
    room: Room,
    /// Copies of files that no process runs any more, the oldest first.
    ended: VecDeque<Ended>,
    /// The device that was last said to be looked at.
    said: Option<u64>,
}

struct Ended {
    number: u64,
    user: u32,
    bytes: u64,
    when: Instant,
}

impl Copying {
    pub(super) fn new(parent: OwnedFd) -> Self {
        let room = Room::new(COPIES_MAX, BYTES_MAX);
        Self { parent, asked: VecDeque::new(), room, ended: VecDeque::new(), said: None }
    }

    /// Whoever takes what is said.
    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    pub(super) fn say(&self, said: &Said) -> io::Result<()> {
        self.tell(said, &NO_FILES)
    }

    fn tell(&self, said: &Said, files: &[File]) -> io::Result<()> {
        pass(&self.parent, &postcard::to_stdvec(said).map_err(io::Error::other)?, files)
    }

    /// If this device doesn't answer, whoever waits knows which it was.
    pub(super) fn say_looks(&mut self, device: u64) -> io::Result<()> {
        if self.said.replace(device) == Some(device) { Ok(()) } else { self.say(&Said::Looks(device)) }
    }

    /// A file that there was no room for.
    pub(super) fn lose(&self) -> io::Result<()> {
        self.say(&Said::Lost)
    }

    /// Something has happened to the file of this watch.
    pub(super) fn ask(&mut self, watch: Watch) {
        self.asked.push_back(watch);
    }

    pub(super) fn next(&mut self) -> Option<Watch> {
        self.asked.pop_front()
    }

    pub(super) fn has_any(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Copies a file that has gone, and that was opened to be looked at only.
    pub(super) fn copy(&mut self, watched: &mut Watched, looked_at: &File) -> io::Result<()> {
        watched.state = State::Lost;
        if let Some(device) = watched.device {
            self.say_looks(device)?;
        }
        let Some((file, metadata)) = reopen(looked_at) else { return Ok(()) };
        // Code that is generated lies in files, too.
        if !is_elf(&file) {
            return Ok(());
        }
        let bytes = metadata.len();
        if bytes > FILE_BYTES_MAX || !self.make_room(watched.user, bytes)? {
            return self.lose();
        }
        let Some(copy) = copy_whole(&file, bytes) else { return self.lose() };
        let changed_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        let copied = Copied {
            number: watched.number,
            ids: watched.ids.clone(),
            since_ns: watched.since_ns,
            changed_ns,
            needs_build_id: watched.needs_build_id,
            owner: FileOwner::of(&file, &metadata),
        };
        self.tell(&Said::Copied(copied), &[copy])?;
        self.room.take(watched.user, bytes);
        watched.state = State::Copied(bytes);
        Ok(())
    }

    /// Gives up copies of files that no process runs any more, if there has to be room.
    fn make_room(&mut self, user: u32, bytes: u64) -> io::Result<bool> {
        while !self.room.has(user, bytes) {
            let Some(oldest) = self.ended.pop_front() else { return Ok(false) };
            self.forget(&oldest)?;
        }
        Ok(true)
    }

    fn forget(&mut self, ended: &Ended) -> io::Result<()> {
        self.room.give_back(ended.user, ended.bytes);
        self.say(&Said::Forget(ended.number))
    }

    /// No process runs this file any more.
    pub(super) fn has_ended(&mut self, watched: &Watched, at_ns: u64) -> io::Result<()> {
        let State::Copied(bytes) = watched.state else { return Ok(()) };
        self.ended.push_back(Ended { number: watched.number, user: watched.user, bytes, when: Instant::now() });
        self.say(&Said::Ended { number: watched.number, at_ns })
    }

    /// Gives up what nobody waits for any more.
    pub(super) fn forget_old(&mut self) -> io::Result<()> {
        while self.ended.front().is_some_and(|ended| ended.when.elapsed() >= REST)
            && let Some(oldest) = self.ended.pop_front()
        {
            self.forget(&oldest)?;
        }
        Ok(())
    }
}
