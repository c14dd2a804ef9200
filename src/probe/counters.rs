//! What the kernel programs have counted, summed over the processors.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

use super::abi::fl_counter;
use super::losses::{self, Losses};

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
    /// What was not sent, not watched or not seen. Of what was not sent nothing is missing in `matched`.
    pub losses: Losses,
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
            losses: Losses::read(&losses::CRASH, map)?,
        })
    }
}
