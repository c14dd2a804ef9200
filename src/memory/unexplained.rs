//! Executable mappings that no call explains. A thread can be preempted between the moment at which its mapping is there and the end of its
//! call, which is when the call is seen: so a mapping is judged one look after the one that has found it.

use super::cover::Cover;
use super::record::{Mapping, MappingCall, PageCounts};
use super::target;
use crate::evidence::Region;
use crate::hex::Hex;
use crate::output::Timestamp;
use crate::record::Head;

/// The mappings of one process that were found, and that no call has explained so far.
#[derive(Debug, Default)]
pub(super) struct Unexplained(Vec<Found>);

#[derive(Debug)]
struct Found {
    start: u64,
    end: u64,
    /// The record of it, as it was when it was found.
    record: Mapping,
}

impl Unexplained {
    /// The executable mappings among those of a process that are not accounted for.
    pub(super) fn among(regions: &[Region], cover: &Cover) -> Vec<Region> {
        let code = regions.iter().filter(|region| region.permissions.execute);
        code.filter(|region| !cover.holds(region.start, region.end)).cloned().collect()
    }

    /// Keeps a mapping that was found until it is explained or judged.
    pub(super) fn add(&mut self, region: &Region, record: Mapping) {
        self.0.push(Found { start: region.start, end: region.end, record });
    }

    /// Drops the mappings that calls have explained by now. Asked after each call: the next one may unmap them.
    pub(super) fn explain(&mut self, cover: &Cover) {
        self.0.retain(|found| !cover.holds(found.start, found.end));
    }

    /// Judges what is left: no call explains it. What is there still, among `regions`, is accounted for from now on.
    pub(super) fn judge(&mut self, regions: &[Region], cover: &mut Cover) -> Vec<Mapping> {
        let left = std::mem::take(&mut self.0);
        let is_there = |found: &Found| {
            regions
                .iter()
                .any(|region| region.permissions.execute && region.start <= found.start && found.end <= region.end)
        };
        for found in left.iter().filter(|found| is_there(found)) {
            cover.add(found.start, found.end);
        }
        left.into_iter().map(|found| found.record).collect()
    }
}

/// The record of a mapping that was found in this process.
pub(super) fn record(
    pid: u32,
    region: &Region,
    host: &str,
    timestamp: Timestamp,
    pages: Option<PageCounts>,
) -> Mapping {
    Mapping {
        head: Head::new("mapping", timestamp, host),
        pid,
        tid: pid,
        ppid: 0,
        comm: target::comm(pid),
        call: MappingCall::Unseen,
        arguments: Vec::new(),
        address: Some(Hex(region.start)),
        length: Some(region.end - region.start),
        permissions: Some(region.permissions.to_string()),
        result: None,
        error: None,
        mapping_name: region.name(),
        offset: region.file().map(|_| Hex(region.file_offset)),
        pages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Backing, Permissions};

    fn code(start: u64, end: u64) -> Region {
        let permissions = Permissions { read: true, write: false, execute: true, shared: false };
        Region { start, end, permissions, file_offset: 0, backing: Backing::Anonymous }
    }

    /// One look at a process: returns the addresses of the mappings that it reports.
    fn look(unexplained: &mut Unexplained, regions: &[Region], cover: &mut Cover) -> Vec<u64> {
        let judged = unexplained.judge(regions, cover);
        for region in Unexplained::among(regions, cover) {
            unexplained.add(&region, record(u32::MAX, &region, "here", Timestamp::now(), None));
        }
        judged.into_iter().filter_map(|mapping| Some(mapping.address?.0)).collect()
    }

    #[test]
    fn a_call_that_returns_after_the_look_that_found_its_mapping_is_seen() {
        let (mut unexplained, mut cover) = (Unexplained::default(), Cover::default());
        let regions = [code(0x1000, 0x2000), code(0x8000, 0x9000)];
        assert!(look(&mut unexplained, &regions, &mut cover).is_empty(), "their calls may not have returned");
        // One of them returns, and the next call unmaps what it has mapped.
        cover.add(0x1000, 0x2000);
        unexplained.explain(&cover);
        cover.remove(0x1000, 0x2000);
        assert_eq!(look(&mut unexplained, &regions[1..], &mut cover), [0x8000]);
        assert!(look(&mut unexplained, &regions[1..], &mut cover).is_empty(), "once");
    }

    #[test]
    fn a_mapping_that_grows_together_with_its_neighbour_is_explained_by_both_calls() {
        let (mut unexplained, mut cover) = (Unexplained::default(), Cover::default());
        cover.add(0x1000, 0x2000);
        let regions = [code(0x1000, 0x3000)];
        assert!(look(&mut unexplained, &regions, &mut cover).is_empty());
        cover.add(0x2000, 0x3000);
        unexplained.explain(&cover);
        assert!(look(&mut unexplained, &regions, &mut cover).is_empty());
    }

    #[test]
    fn what_is_gone_by_then_is_reported_and_accounted_for_no_more() {
        let (mut unexplained, mut cover) = (Unexplained::default(), Cover::default());
        let regions = [code(0x1000, 0x2000)];
        assert!(look(&mut unexplained, &regions, &mut cover).is_empty());
        assert_eq!(look(&mut unexplained, &[], &mut cover), [0x1000]);
        // Another one at its place is another mapping.
        assert!(look(&mut unexplained, &regions, &mut cover).is_empty());
        assert_eq!(look(&mut unexplained, &regions, &mut cover), [0x1000]);
    }
}
