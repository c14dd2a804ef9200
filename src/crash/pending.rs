//! Samples that wait for their names, in the order in which they came.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::RecordedCalls;
use super::decode::UnnamedFacts;
use crate::evidence::Failure;
use crate::naming::{Job, Named, Naming};
use crate::probe::abi::fl_crash;

/// How many samples wait at most. More stay in the ring.
const SAMPLES_MAX: usize = 256;

/// How much of stacks waits with them.
const STACKS_BYTES_MAX: usize = 8 << 20;

/// A sample while it is named.
pub(super) struct PendingSample {
    pub(super) sample: Box<fl_crash>,
    pub(super) prepared: UnnamedFacts,
    /// The kernel calls before it.
    pub(super) recorded: Option<RecordedCalls>,
    /// It becomes a record.
    pub(super) is_shown: bool,
}

/// Samples that wait.
pub(super) struct Pending {
    naming: Naming,
    /// Each with the size of its stack.
    waiting: VecDeque<(PendingSample, usize)>,
    stack_bytes: usize,
    /// Readable when there are names, and when there are samples and room for them.
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
        Ok(Self { naming, waiting: VecDeque::new(), stack_bytes: 0, both, watches_ring: true })
    }

    /// May more samples be taken? A batch may exceed the bounds.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < SAMPLES_MAX && self.stack_bytes < STACKS_BYTES_MAX
    }

    /// Does none wait?
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Samples that must stay in the ring wake nobody.
    pub(super) fn watch_ring(&mut self, ring: BorrowedFd<'_>) -> Result<()> {
        let wanted = self.has_room();
        if wanted != self.watches_ring {
            let events = if wanted { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            self.both.modify(ring, &mut EpollEvent::new(events, 0)).context("failed to wait for samples")?;
            self.watches_ring = wanted;
        }
        Ok(())
    }

    pub(super) fn add(&mut self, waiting: PendingSample, job: Job) {
        let bytes = job.unwind.as_ref().map_or(0, |unwind| unwind.stack.bytes());
        self.stack_bytes += bytes;
        self.waiting.push_back((waiting, bytes));
        self.naming.submit(job);
    }

    /// The first sample, if its names come until then. If none will come, it goes without.
    pub(super) fn next(&mut self, until: Instant) -> Option<(PendingSample, Named)> {
        let first = self.waiting.front()?;
        let named = match self.naming.waiting() {
            0 => first.0.prepared.unnamed(Failure::Unavailable),
            _ => match self.naming.next(until) {
                Ok(named) => named?,
                Err(failure) => first.0.prepared.unnamed(failure),
            },
        };
        let (waiting, bytes) = self.waiting.pop_front()?;
        self.stack_bytes -= bytes;
        Some((waiting, named))
    }

    /// All that wait, which nobody will name any more.
    pub(super) fn give_up(&mut self) -> Vec<PendingSample> {
        self.naming.abandon();
        self.stack_bytes = 0;
        self.waiting.drain(..).map(|(waiting, _)| waiting).collect()
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.0.as_fd()
    }
}
