//! Reads the pages that become executable: hands on what the kernel program has read, and reads the rest.

use anyhow::Result;

use super::fetch::{Fetcher, PagesRead};
use super::item::{Emit, Item, Limits};
use super::record::{PageCounts, Source, Trigger};
use super::sample::range;
use super::space::{PageReading, Space};
use crate::evidence::Region;
use crate::output::Timestamp;
use crate::page;
use crate::probe::abi::memory::{fl_mapping, fl_page};

/// Hands out the pages that the kernel program has read for a record. Pages outside of its range are the header of a module.
pub(super) fn pages_read(
    space: &mut Space,
    mapping: &fl_mapping,
    pages: &[Box<fl_page>],
    reading: PageReading<'_>,
    emit: Emit<'_>,
) -> Result<PagesRead> {
    let (start, end) = range(mapping);
    let mut have = PagesRead::default();
    for page in pages {
        let is_within = (start..end).contains(&page.address);
        if is_within {
            have.pages.insert(page.address);
        }
        if let Some(page) = space.page(page.address, &page.bytes, Source::Kernel, reading).map(Box::new) {
            emit(if is_within { Item::Page(page) } else { Item::Header(page) })?;
        }
    }
    Ok(have)
}

/// Reads a whole mapping that no call explains; `None` means that no pages are wanted.
pub(super) fn read_whole(
    (space, fetcher): (&mut Space, &mut Fetcher),
    region: &Region,
    limits: Limits,
    (trigger, timestamp): (Trigger, Timestamp),
    emit: Emit<'_>,
) -> Result<Option<PageCounts>> {
    let (mut room, whole) = (limits.max_bytes, (region.start, region.end));
    let reading = PageReading { timestamp, trigger, region: Some(region), only_changed: false };
    let mut pass = |page| emit(Item::Page(Box::new(page)));
    let read = || space.read_rest(region, whole, &PagesRead::default(), (fetcher, &mut room), reading, &mut pass);
    limits.pages.then(read).transpose()
}

/// Reads what the kernel program could not of a range that has become executable, which may be in several mappings.
pub(super) fn read_range(
    (space, fetcher): (&mut Space, &mut Fetcher),
    region: &Region,
    (start, end): (u64, u64),
    have: &PagesRead,
    max_bytes: u64,
    reading: PageReading<'_>,
    emit: Emit<'_>,
) -> Result<PageCounts> {
    let read = have.pages.len() as u64;
    if (end - start).div_ceil(page::size()) == read {
        return Ok(PageCounts { total: read, resident: read, ..PageCounts::default() });
    }
    let mut room = max_bytes.saturating_sub(read * page::size());
    let mut pass = |page| emit(Item::Page(Box::new(page)));
    if end <= region.end {
        return space.read_rest(region, (start, end), have, (fetcher, &mut room), reading, &mut pass);
    }
    let mut sum = PageCounts::default();
    let others = fetcher.regions(space.pid()).unwrap_or_else(|_| vec![region.clone()]);
    for region in others.iter().filter(|region| region.permissions.execute && region.start < end && start < region.end)
    {
        let reading = PageReading { region: Some(region), ..reading };
        let part = (start.max(region.start), end.min(region.end));
        sum += space.read_rest(region, part, have, (&mut *fetcher, &mut room), reading, &mut pass)?;
    }
    Ok(sum)
}
