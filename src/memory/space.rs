//! The state of one watched process: what was seen in its pages, and what is accounted for.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::cover::Cover;
use super::fetch::{Fetcher, PagesRead, Wanted};
use super::record::{Page, PageCounts, Source, Trigger};
use super::target::{Memory, is_volatile};
use super::unexplained::Unexplained;
use crate::evidence::Region;
use crate::output::Timestamp;
use crate::page;

/// Pages of a process whose last content is remembered: beyond these all are forgotten, and reported again.
const SEEN_MAX: usize = 1 << 20;

/// A watched process.
#[derive(Debug)]
pub(super) struct Space {
    pid: u32,
    /// `None` means not opened yet, or it can't be.
    memory: Option<Memory>,
    /// The SHA-256 of what was last seen in a page, by address.
    seen: HashMap<u64, [u8; 32]>,
    /// Executable memory that is accounted for.
    pub cover: Cover,
    /// Executable memory that isn't, so far.
    pub unexplained: Unexplained,
    /// Some of it can change without a call.
    pub is_volatile: bool,
    /// The address at which the timer goes on.
    cursor: u64,
}

/// How a page is read, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageReading<'a> {
    pub timestamp: Timestamp,
    pub trigger: Trigger,
    /// The mapping that it is in; `None` means that it isn't known.
    pub region: Option<&'a Region>,
    /// Only if it isn't what was seen there last.
    pub only_changed: bool,
}

impl Space {
    pub(super) fn new(pid: u32) -> Self {
        Self {
            pid,
            memory: Memory::open(pid).ok(),
            seen: HashMap::new(),
            cover: Cover::default(),
            unexplained: Unexplained::default(),
            is_volatile: false,
            cursor: 0,
        }
    }

    /// A child: its memory is a copy of its parent's.
    pub(super) fn fork(&self, pid: u32) -> Self {
        Self {
            pid,
            memory: Memory::open(pid).ok(),
            seen: self.seen.clone(),
            cover: self.cover.clone(),
            unexplained: Unexplained::default(),
            is_volatile: self.is_volatile,
            cursor: 0,
        }
    }

    /// As the host numbers it.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// It executes another program: its old memory is gone.
    pub(super) fn execute(&mut self) {
        *self = Self::new(self.pid);
    }

    /// A page that was read. `None` means that it is as it was last read there, and that only changes are wanted.
    pub(super) fn page(
        &mut self,
        address: u64,
        bytes: &[u8],
        source: Source,
        reading: PageReading<'_>,
    ) -> Option<Page> {
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        if self.seen.insert(address, sha256) == Some(sha256) && reading.only_changed {
            return None;
        }
        Some(Page {
            timestamp: reading.timestamp,
            pid: self.pid,
            address,
            permissions: reading.region.map(|region| region.permissions.to_string()),
            trigger: reading.trigger,
            sha256,
            resident: source == Source::Kernel,
            source,
            mapping_name: reading.region.and_then(Region::name),
            bytes: Arc::from(bytes),
        })
    }

    /// The page at `address` as it is now. `None` means that it isn't there, or that it is as it was last read there.
    pub(super) fn read(&mut self, address: u64, reading: PageReading<'_>, fetcher: &mut Fetcher) -> Option<Page> {
        let mut found = None;
        fetcher.pages(self.pid, self.memory.as_ref()?, (address, 1), |page| found = Some(page));
        self.page(address, &found?.bytes, Source::Process, reading)
    }

    /// Reads the pages from `start` to `end` of `region`, less those that the kernel program had (`have`), and at most `room`
    /// bytes of them, of which the bytes read are subtracted. Passes each to `emit`; returns how many became what.
    pub(super) fn read_rest<E>(
        &mut self,
        region: &Region,
        range: (u64, u64),
        have: &PagesRead,
        from: (&mut Fetcher, &mut u64),
        reading: PageReading<'_>,
        emit: &mut impl FnMut(Page) -> Result<(), E>,
    ) -> Result<PageCounts, E> {
        let (fetcher, room) = from;
        let mut wanted = Wanted { region: region.clone(), range, have: have.clone(), room: *room };
        // Borrowed apart from the rest, which remembers what is read.
        let memory = self.memory.take();
        let read = fetcher.range(self.pid, memory.as_ref(), &mut wanted, |read| {
            self.page(read.address, &read.bytes, read.source, reading).map_or(Ok(()), &mut *emit)
        });
        (self.memory, *room) = (memory, wanted.room);
        read
    }

    /// Looks again at memory that can change by itself, `room` bytes of it, and goes on there the next time. Hands what has
    /// changed to `emit`.
    pub(super) fn look_again<E>(
        &mut self,
        regions: &[Region],
        (fetcher, room): (&mut Fetcher, &mut u64),
        timestamp: Timestamp,
        emit: &mut impl FnMut(Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let cursor = std::mem::take(&mut self.cursor);
        for region in regions.iter().filter(|region| is_volatile(region) && region.end > cursor) {
            let reading = PageReading { timestamp, trigger: Trigger::Timer, region: Some(region), only_changed: true };
            let start = region.start.max(cursor);
            let tally = self.read_rest(
                region,
                (start, region.end),
                &PagesRead::default(),
                (&mut *fetcher, &mut *room),
                reading,
                emit,
            )?;
            if tally.left_out > 0 {
                // If pages were untouched in between, it is not exactly the end: some are read twice.
                self.cursor = start + (tally.read + tally.gone) * page::size();
                break;
            }
        }
        Ok(())
    }
}
