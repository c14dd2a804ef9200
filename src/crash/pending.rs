//! Samples that wait for their names, and when more of them are taken.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::RecordedCalls;
use super::decode::UnnamedFacts;
use super::ending::{Alternatives, Proved};
use super::room::Room;
use crate::evidence::Failure;
use crate::naming::{Job, Named, Naming, Owner};
use crate::probe::GroupId;
use crate::probe::abi::fl_crash;

/// How long samples stay in the ring because there is no room for them. Those of others are among them, and more find no place there.
const IN_RING_MAX: Duration = Duration::from_millis(500);

/// A sample while it is named.
pub(super) struct PendingSample {
    pub(super) sample: Box<fl_crash>,
    /// The group that it is in. `None` means none.
    pub(super) group: Option<GroupId>,
    pub(super) prepared: UnnamedFacts,
    /// The kernel calls before it.
    pub(super) recorded: Option<RecordedCalls>,
    /// It becomes a record.
    pub(super) is_shown: bool,
    /// What may have happened in its place. `None` means nothing.
    pub(super) alternatives: Option<Alternatives>,
    /// What the namer has proved of it.
    pub(super) proved: Proved,
}

/// Samples that wait.
pub(super) struct Pending {
    naming: Naming,
    room: Room<PendingSample>,
    /// Those that go without names, as none will come.
    unnamed: VecDeque<(PendingSample, Named)>,
    /// Since when there is no room. `None` means that there is.
    full_since: Option<Instant>,
    /// Readable when there are names, and when there are samples and they may be taken.
    both: Epoll,
    watches_ring: bool,
}

impl Pending {
    /// Waits for `naming`, and for the ring while there is room.
    pub(super) fn new(naming: Naming, ring: BorrowedFd<'_>) -> Result<Self> {
        let what = "failed to wait for samples and names at once";
        let both = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context(what)?;
        for fd in [ring, naming.as_fd()] {
            both.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0)).context(what)?;
        }
        let (room, unnamed) = (Room::default(), VecDeque::new());
        Ok(Self { naming, room, unnamed, full_since: None, both, watches_ring: true })
    }

    /// Is there room for more samples? A batch may exceed the bounds.
    pub(super) fn has_room(&self) -> bool {
        self.room.has_room()
    }

    /// May more samples be taken? For those that there is no room for, [`Pending::give_up_one`] makes it. `is_half_full`: the ring.
    pub(super) fn may_take(&mut self, is_half_full: bool) -> bool {
        if self.room.has_room() {
            self.full_since = None;
            return true;
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        is_half_full || since.elapsed() >= IN_RING_MAX
    }

    /// From now on, files that go while processes run them are kept.
    pub(super) fn keep_files(&mut self) {
        self.naming.keep_files();
    }

    /// How many could not be.
    pub(super) fn files_not_kept(&self) -> u64 {
        self.naming.files_not_kept()
    }

    /// Does none wait?
    pub(super) fn is_empty(&self) -> bool {
        self.room.is_empty() && self.unnamed.is_empty()
    }

    /// Samples that must stay in the ring wake nobody.
    pub(super) fn watch_ring(&mut self, ring: BorrowedFd<'_>) -> Result<()> {
        let wanted = self.may_take(false);
        if wanted != self.watches_ring {
            let events = if wanted { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            self.both.modify(ring, &mut EpollEvent::new(events, 0)).context("failed to wait for samples")?;
            self.watches_ring = wanted;
        }
        Ok(())
    }

    pub(super) fn add(&mut self, owner: Owner, waiting: PendingSample, job: Job) {
        let bytes = job.unwind.as_ref().map_or(0, |unwind| unwind.stack.bytes());
        let ticket = self.naming.submit(owner.clone(), job);
        self.room.add(owner, ticket, bytes, waiting);
    }

    /// A sample whose names come until then. If none will come, it goes without.
    pub(super) fn next(&mut self, until: Instant) -> Option<(PendingSample, Named)> {
        loop {
            if let Some(unnamed) = self.unnamed.pop_front() {
                return Some(unnamed);
            }
            match self.naming.next(until) {
                Ok(Some(answer)) => {
                    // One that was given up waits no more.
                    if let Some(waiting) = self.room.take(&answer.owner, answer.ticket) {
                        return Some((waiting, answer.named));
                    }
                }
                Ok(None) if self.naming.waiting() > 0 || self.room.is_empty() => return None,
                Ok(None) => self.go_without(Failure::Unavailable),
                Err(failure) => self.go_without(failure),
            }
        }
    }

    fn go_without(&mut self, failure: Failure) {
        let unnamed = |waiting: PendingSample| {
            let named = waiting.prepared.unnamed(failure);
            (waiting, named)
        };
        self.unnamed.extend(self.room.clear().into_iter().map(unnamed));
    }

    /// If there are more than there is room for, one of the owner that has most goes without names.
    pub(super) fn give_up_one(&mut self) -> Option<(PendingSample, Named)> {
        let (owner, ticket, waiting) = self.room.give_up()?;
        self.naming.forget(&owner, ticket);
        let named = waiting.prepared.unnamed(Failure::Busy);
        Some((waiting, named))
    }

    /// All that wait, which nobody will name any more.
    pub(super) fn give_up(&mut self) -> Vec<PendingSample> {
        self.naming.abandon();
        self.room.clear()
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.0.as_fd()
    }
}
