//! What the kernel programs have counted, summed over the processors.

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

use super::abi::fl_counter;

/// One number for each line of `enum fl_counter`, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Deliveries of a watched signal to a watched task.
    pub matched: u64,
    /// Deliveries of a watched signal that the filters left out.
    pub filtered: u64,
    /// Matched ones that ended their process.
    pub fatal: u64,
    /// Matched ones that a handler took.
    pub handled: u64,
    /// Matched ones that were ignored.
    pub ignored: u64,
    /// Samples handed to user space.
    pub records: u64,
    /// Samples for which the ring had no room.
    pub sample_ring_full: u64,
    /// Descendants of the command that were not watched: too many at once.
    pub watch_table_full: u64,
}

impl Counters {
    /// Reads the map `fl_counters`.
    ///
    /// # Errors
    /// Where a counter can't be read.
    pub(super) fn read(map: &impl MapCore) -> Result<Self> {
        let sum = |which: fl_counter| -> Result<u64> {
            let values = map
                .lookup_percpu(&which.0.to_ne_bytes(), MapFlags::ANY)
                .with_context(|| format!("failed to read counter {}", which.0))?
                .unwrap_or_default();
            Ok(values.iter().filter_map(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?))).sum())
        };
        Ok(Self {
            matched: sum(fl_counter::FL_MATCHED)?,
            filtered: sum(fl_counter::FL_FILTERED)?,
            fatal: sum(fl_counter::FL_FATAL)?,
            handled: sum(fl_counter::FL_HANDLED)?,
            ignored: sum(fl_counter::FL_IGNORED)?,
            records: sum(fl_counter::FL_RECORDS)?,
            sample_ring_full: sum(fl_counter::FL_LOST_RING_FULL)?,
            watch_table_full: sum(fl_counter::FL_LOST_WATCH_FULL)?,
        })
    }

    /// What was lost, by reason, zeros included.
    pub fn losses(&self) -> [(&'static str, u64); 2] {
        [("sample_ring_full", self.sample_ring_full), ("watch_table_full", self.watch_table_full)]
    }

    /// Was anything lost?
    pub fn lost_any(&self) -> bool {
        self.losses().iter().any(|(_, count)| *count > 0)
    }
}
