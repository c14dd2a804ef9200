//! The state of one watched process, and reading pages that the kernel program could not read.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::cover::Cover;
use super::record::{Page, PageCounts, Source, Trigger};
use super::target::{self, Memory, Presence, is_volatile};
use super::unexplained::Unexplained;
use crate::evidence::{Backing, Region};
use crate::output::Timestamp;
use crate::page;

/// Pages of a process whose last content is remembered: beyond these all are forgotten, and reported again.
const SEEN_MAX: usize = 1 << 20;

/// The most of one mapping that is looked through for pages.
const LOOK_MAX: u64 = 64 << 30;

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

/// What is read of a page, and why.
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
    pub(super) fn read(&mut self, address: u64, reading: PageReading<'_>) -> Option<Page> {
        let mut bytes = target::page();
        self.memory.as_ref()?.page(address, &mut bytes)?;
        self.page(address, &bytes, Source::Process, reading)
    }

    /// Reads the pages from `start` to `end` of `region`, less those that the kernel program had (`have`), and at most `room`
    /// bytes of them, of which the bytes read are subtracted. Passes each to `emit`; returns how many became what.
    pub(super) fn read_rest<E>(
        &mut self,
        region: &Region,
        (start, end): (u64, u64),
        have: &PagesRead,
        room: &mut u64,
        reading: PageReading<'_>,
        emit: &mut impl FnMut(Page) -> Result<(), E>,
    ) -> Result<PageCounts, E> {
        let look_end = end.min(start.saturating_add(LOOK_MAX));
        // A page of a file, or of the kernel's own for all processes: it is there whether or not the process has used it.
        let is_backed = region.file().is_some() || region.backing == Backing::Vdso;
        let range = (start, look_end);
        let present = self.choose_present(range, have, *room, is_backed);
        let PagesToRead { mut tally, wanted, room: left } =
            present.unwrap_or_else(|| choose_absent(range, have, *room, is_backed));
        *room = left;
        tally.total = (end - start).div_ceil(page::size());
        tally.left_out += (end - look_end).div_ceil(page::size());
        let file = region.file().and_then(|mapped| {
            let opened = self.memory.as_ref().and_then(|memory| memory.mapped_file(region.start, region.end));
            opened.or_else(|| target::file_by_path(self.pid, mapped))
        });
        for (address, presence) in wanted {
            match self.fetch(region, address, presence, file.as_ref()) {
                FetchResult::Page(bytes, source) => {
                    tally.read += 1;
                    if let Some(page) = self.page(address, &bytes, source, reading) {
                        emit(page)?;
                    }
                }
                FetchResult::Untouched => tally.untouched += 1,
                FetchResult::Gone => tally.gone += 1,
            }
        }
        Ok(tally)
    }

    /// Chooses the pages of a range that are to be read, by what the kernel says of each. `None` means that the process is gone.
    fn choose_present(
        &self,
        (start, end): (u64, u64),
        have: &PagesRead,
        room: u64,
        is_backed: bool,
    ) -> Option<PagesToRead> {
        let mut choice = PagesToRead { tally: PageCounts::default(), wanted: Vec::new(), room };
        let take = |address: u64, presence: Presence| {
            if have.pages.contains(&address) {
                choice.tally.resident += 1;
            } else if presence == Presence::Untouched && !is_backed {
                choice.tally.untouched += 1;
            } else if choice.room < page::size() {
                choice.tally.left_out += 1;
            } else {
                choice.room -= page::size();
                choice.wanted.push((address, presence));
            }
            true
        };
        self.memory.as_ref()?.presence(start, end, take).then_some(choice)
    }

    /// Reads one page from wherever it can be read.
    fn fetch(&self, region: &Region, address: u64, presence: Presence, file: Option<&File>) -> FetchResult {
        let mut bytes = target::page();
        // The file first, if it has the same content: a read in the process would map the page there.
        if presence != Presence::Own
            && let Some(file) = file
        {
            return match target::file_page(file, region.file_offset + (address - region.start), &mut bytes) {
                Some(()) => FetchResult::Page(bytes, Source::File),
                None => FetchResult::Untouched,
            };
        }
        if self.memory.as_ref().and_then(|memory| memory.page(address, &mut bytes)).is_some() {
            return FetchResult::Page(bytes, Source::Process);
        }
        // The kernel has one for all processes.
        if region.backing == Backing::Vdso
            && let Some(own) = target::own_vdso(address - region.start)
        {
            return FetchResult::Page(own, Source::File);
        }
        FetchResult::Gone
    }

    /// Looks again at memory that can change by itself, `room` bytes of it, and goes on there the next time. Hands what has
    /// changed to `emit`.
    pub(super) fn look_again<E>(
        &mut self,
        regions: &[Region],
        room: &mut u64,
        timestamp: Timestamp,
        emit: &mut impl FnMut(Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let cursor = std::mem::take(&mut self.cursor);
        for region in regions.iter().filter(|region| is_volatile(region) && region.end > cursor) {
            let reading = PageReading { timestamp, trigger: Trigger::Timer, region: Some(region), only_changed: true };
            let start = region.start.max(cursor);
            let tally = self.read_rest(region, (start, region.end), &PagesRead::default(), room, reading, emit)?;
            if tally.left_out > 0 {
                // If pages were untouched in between, it is not exactly the end: some are read twice.
                self.cursor = start + (tally.read + tally.gone) * page::size();
                break;
            }
        }
        Ok(())
    }
}

/// The pages of a range that the kernel program has read.
#[derive(Clone, Debug, Default)]
pub(super) struct PagesRead {
    /// The pages' addresses.
    pub pages: HashSet<u64>,
    /// The address up to which it has looked for them: a page that it doesn't have was not in memory.
    pub looked_to: u64,
}

/// The pages of a range that are to be read, what is known of the others, and the bytes that may still be read.
struct PagesToRead {
    tally: PageCounts,
    wanted: Vec<(u64, Presence)>,
    room: u64,
}

/// Chooses the pages of a process that is gone: only those of a file are left.
fn choose_absent((start, end): (u64, u64), have: &PagesRead, room: u64, is_backed: bool) -> PagesToRead {
    let mut choice = PagesToRead { tally: PageCounts::default(), wanted: Vec::new(), room };
    let mut address = start;
    while address < end && choice.room >= page::size() {
        if have.pages.contains(&address) {
            choice.tally.resident += 1;
        } else if !is_backed && address < have.looked_to {
            choice.tally.untouched += 1;
        } else if !is_backed {
            choice.tally.gone += 1;
        } else {
            choice.room -= page::size();
            choice.wanted.push((address, Presence::File));
        }
        address += page::size();
    }
    choice.tally.left_out = (end - address) / page::size();
    choice
}

enum FetchResult {
    Page(Vec<u8>, Source),
    /// Behind the end of the file.
    Untouched,
    Gone,
}
