//! What the kernel programs have counted, summed over the processors.

use std::os::fd::{AsRawFd as _, BorrowedFd};

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

/// Of a loaded program its number in the kernel, and how many of its runs the kernel left out because it was on that processor
/// already: interrupted, or preempted where programs at tracepoints can be (v7.0). Counted of fentry from
/// v5.12 on, of raw tracepoints from v6.1, which before that leave none out, of kprobes and tracepoints from v6.7; 0 before. None:
/// the kernel doesn't tell. By its descriptor, because to go through all programs needs CAP_SYS_ADMIN.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> Option<(u32, u64)> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is made of integers and lives during the call.
    let failed =
        unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut length) } != 0;
    (!failed).then_some((info.id, info.recursion_misses))
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
    /// Runs of our programs that the kernel left out: deliveries that are in no other number.
    pub runs_missed: u64,
    /// The same where processes exit: any of them, whose exit is a death only if it ended a caught fault.
    pub exits_missed: u64,
    /// The same where processes fork: of whom it may be. A descendant of the command is known by its parent all the same, unless that
    /// has ended when the descendant is first met.
    pub forks_missed: u64,
}

impl Counters {
    /// Reads the map `fl_counters`, which knows all but what was missed.
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
            runs_missed: 0,
            exits_missed: 0,
            forks_missed: 0,
        })
    }

    /// What was not sent, not watched or not seen, by reason, zeros included. Of what was not sent nothing is missing in `matched`.
    pub fn losses(&self) -> [(&'static str, u64); 8] {
        [
            ("sample_ring_full", self.sample_ring_full),
            ("stack_page_ring_full", self.stack_page_ring_full),
            ("sample_budget", self.sample_budget),
            ("stack_table_full", self.stack_table_full),
            ("watch_table_full", self.watch_table_full),
            ("runs_missed", self.runs_missed),
            ("exits_missed", self.exits_missed),
            ("forks_missed", self.forks_missed),
        ]
    }

    /// Was anything lost that nobody asked to leave out?
    pub fn lost_any(&self) -> bool {
        self.sample_ring_full != 0 || self.watch_table_full != 0 || self.runs_missed != 0
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
            runs_missed: self.runs_missed - earlier.runs_missed,
            exits_missed: self.exits_missed - earlier.exits_missed,
            forks_missed: self.forks_missed - earlier.forks_missed,
        }
    }
}
