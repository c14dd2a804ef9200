//! Chooses and reads the pages of a range that the kernel program could not read.

use std::fs::File;
use std::io;

use super::{PageRead, Wanted};
use crate::evidence::Backing;
use crate::memory::record::{PageCounts, Source};
use crate::memory::target::{self, Memory, Presence};
use crate::page;

/// The most of one mapping that is looked through for pages.
const LOOK_MAX: u64 = 64 << 30;

/// Takes a page that was read.
pub(super) type Take<'a> = &'a mut dyn FnMut(PageRead) -> io::Result<()>;

/// Reads the pages that are `wanted`, and passes each to `take`. Returns how many became what, and the bytes that may still be read.
/// Without `memory` the process is gone.
pub(super) fn read(
    pid: u32,
    memory: Option<&Memory>,
    wanted: &Wanted,
    take: Take<'_>,
) -> io::Result<(PageCounts, u64)> {
    let (region, (start, end)) = (&wanted.region, wanted.range);
    let look_end = end.min(start.saturating_add(LOOK_MAX));
    // A page of a file, or of the kernel's own for all processes: it is there whether or not the process has used it.
    let is_backed = region.file().is_some() || region.backing == Backing::Vdso;
    let present = memory.and_then(|memory| choose_present(memory, (start, look_end), wanted, is_backed));
    let PagesToRead { mut tally, chosen, room } =
        present.unwrap_or_else(|| choose_absent((start, look_end), wanted, is_backed));
    tally.total = (end - start).div_ceil(page::size());
    tally.left_out += (end - look_end).div_ceil(page::size());
    let file = region.file().filter(|_| !chosen.is_empty()).and_then(|mapped| {
        let opened = memory.and_then(|memory| memory.mapped_file(region.start, region.end));
        opened.or_else(|| target::file_by_path(pid, mapped))
    });
    for (address, presence) in chosen {
        match fetch(memory, wanted, address, presence, file.as_ref()) {
            FetchResult::Page(bytes, source) => {
                tally.read += 1;
                take(PageRead { address, source, bytes })?;
            }
            FetchResult::Untouched => tally.untouched += 1,
            FetchResult::Gone => tally.gone += 1,
        }
    }
    Ok((tally, room))
}

/// The pages of a range that are to be read, what is known of the others, and the bytes that may still be read.
struct PagesToRead {
    tally: PageCounts,
    chosen: Vec<(u64, Presence)>,
    room: u64,
}

/// Chooses the pages of a range that are to be read, by what the kernel says of each. `None` means that the process is gone.
fn choose_present(memory: &Memory, (start, end): (u64, u64), wanted: &Wanted, is_backed: bool) -> Option<PagesToRead> {
    let mut choice = PagesToRead { tally: PageCounts::default(), chosen: Vec::new(), room: wanted.room };
    let take = |address: u64, presence: Presence| {
        if wanted.have.pages.contains(&address) {
            choice.tally.resident += 1;
        } else if presence == Presence::Untouched && !is_backed {
            choice.tally.untouched += 1;
        } else if choice.room < page::size() {
            choice.tally.left_out += 1;
        } else {
            choice.room -= page::size();
            choice.chosen.push((address, presence));
        }
        true
    };
    memory.presence(start, end, take).then_some(choice)
}

/// Chooses the pages of a process that is gone: only those of a file are left.
fn choose_absent((start, end): (u64, u64), wanted: &Wanted, is_backed: bool) -> PagesToRead {
    let mut choice = PagesToRead { tally: PageCounts::default(), chosen: Vec::new(), room: wanted.room };
    let mut address = start;
    while address < end && choice.room >= page::size() {
        if wanted.have.pages.contains(&address) {
            choice.tally.resident += 1;
        } else if !is_backed && address < wanted.have.looked_to {
            choice.tally.untouched += 1;
        } else if !is_backed {
            choice.tally.gone += 1;
        } else {
            choice.room -= page::size();
            choice.chosen.push((address, Presence::File));
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

/// Reads one page from wherever it can be read.
fn fetch(
    memory: Option<&Memory>,
    wanted: &Wanted,
    address: u64,
    presence: Presence,
    file: Option<&File>,
) -> FetchResult {
    let (region, mut bytes) = (&wanted.region, target::page());
    // The file first, if it has the same content: a read in the process would map the page there.
    if presence != Presence::Own
        && let Some(file) = file
    {
        return match target::file_page(file, region.file_offset + (address - region.start), &mut bytes) {
            Some(()) => FetchResult::Page(bytes, Source::File),
            None => FetchResult::Untouched,
        };
    }
    if memory.and_then(|memory| memory.page(address, &mut bytes)).is_some() {
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
