//! What the kernel programs have counted, summed over the processors.

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

use super::abi::fl_counter;

/// One counter of the map `fl_counters`, summed over the processors.
pub(super) fn sum(map: &impl MapCore, which: u32) -> Result<u64> {
    let values = map
        .lookup_percpu(&which.to_ne_bytes(), MapFlags::ANY)
        .with_context(|| format!("failed to read counter {which}"))?
        .unwrap_or_default();
    Ok(values.iter().filter_map(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?))).sum())
}

/// One number for each line of `enum fl_counter`, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Deliveries of a watched signal to a watched task, but for those that ended a caught fault, and the latter.
    pub matched: u64,
    /// Deliveries of a watched signal that the filters left out.
    pub filtered: u64,
    /// Matched ones that ended their process.
    pub fatal: u64,
    /// Ends of processes after a handler took their fault.
    pub caught: u64,
    /// Matched ones that a handler took.
    pub handled: u64,
    /// Matched ones that were ignored.
    pub ignored: u64,
    /// Samples handed to user space.
    pub records: u64,
    /// Samples for which the ring had no room.
    pub sample_ring_full: u64,
    /// Pages of stacks for which the ring had no room.
    pub stack_page_ring_full: u64,
    /// Samples that the budget did not allow.
    pub sample_budget: u64,
    /// Groups whose stack found no place.
    pub stack_table_full: u64,
    /// Descendants of the command that were not watched: too many at once.
    pub watch_table_full: u64,
}

impl Counters {
    /// Reads the map `fl_counters`.
    ///
    /// # Errors
    /// Where a counter can't be read.
    pub(super) fn read(map: &impl MapCore) -> Result<Self> {
        let sum = |which: fl_counter| sum(map, which.0);
        let fatal = sum(fl_counter::FL_FATAL)?;
        let caught = sum(fl_counter::FL_CAUGHT)?;
        let handled = sum(fl_counter::FL_HANDLED)?;
        let ignored = sum(fl_counter::FL_IGNORED)?;
        Ok(Self {
            matched: fatal + caught + handled + ignored,
            filtered: sum(fl_counter::FL_FILTERED)?,
            fatal,
            caught,
            handled,
            ignored,
            records: sum(fl_counter::FL_RECORDS)?,
            sample_ring_full: sum(fl_counter::FL_LOST_RING_FULL)?,
            stack_page_ring_full: sum(fl_counter::FL_LOST_PAGES)?,
            sample_budget: sum(fl_counter::FL_LOST_BUDGET)?,
            stack_table_full: sum(fl_counter::FL_LOST_STACK_FULL)?,
            watch_table_full: sum(fl_counter::FL_LOST_WATCH_FULL)?,
        })
    }

    /// What was not sent or not watched, by reason, zeros included. None of it is missing in `matched`.
    pub fn losses(&self) -> [(&'static str, u64); 5] {
        [
            ("sample_ring_full", self.sample_ring_full),
            ("stack_page_ring_full", self.stack_page_ring_full),
            ("sample_budget", self.sample_budget),
            ("stack_table_full", self.stack_table_full),
            ("watch_table_full", self.watch_table_full),
        ]
    }

    /// Was anything lost that nobody asked to leave out?
    pub fn lost_any(&self) -> bool {
        self.sample_ring_full != 0 || self.watch_table_full != 0
    }

    /// What has been added since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let Self { matched, filtered, fatal, caught, handled, ignored, records, .. } = self;
        Self {
            matched: matched - earlier.matched,
            filtered: filtered - earlier.filtered,
            fatal: fatal - earlier.fatal,
            caught: caught - earlier.caught,
            handled: handled - earlier.handled,
            ignored: ignored - earlier.ignored,
            records: records - earlier.records,
            sample_ring_full: self.sample_ring_full - earlier.sample_ring_full,
            stack_page_ring_full: self.stack_page_ring_full - earlier.stack_page_ring_full,
            sample_budget: self.sample_budget - earlier.sample_budget,
            stack_table_full: self.stack_table_full - earlier.stack_table_full,
            watch_table_full: self.watch_table_full - earlier.watch_table_full,
        }
    }
}
