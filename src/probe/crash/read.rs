//! Reads what the crash probe has counted, and writes to it while it runs.

use std::cell::Cell;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use libbpf_rs::Map;

use super::Probe;
use crate::host;
use crate::probe::abi::{fl_counter, fl_libc};
use crate::probe::losses::{self, Losses, RUNS_MISSED};
use crate::probe::table::TypedTable as _;

/// One number for each line of `enum fl_counter`, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Deliveries of a watched signal to a watched task; for a caught fault, its end in place of the delivery that ended it.
    pub matched: u64,
    /// Deliveries of a watched signal that the filters left out.
    pub filtered: u64,
    /// Matched ones that ended their process.
    pub fatal: u64,
    /// Ends of processes after a handler took their fault, also where it may have been left before.
    pub caught: u64,
    /// Matched ones that a handler took.
    pub handled: u64,
    /// Matched ones that were ignored.
    pub ignored: u64,
    /// Samples that were sent to user space.
    pub records: u64,
    /// Samples that were not sent, processes not watched, runs not seen. `matched` includes the events of samples that were not sent.
    pub losses: Losses,
}

/// A death whose run was skipped at its delivery is at the coredump by then.
const TO_COREDUMP: Duration = Duration::from_millis(5);

/// The skipped runs that nothing has made up for, at the last reading: the number never falls.
#[derive(Debug, Default)]
pub(super) struct RunsMissed(Cell<u64>);

impl RunsMissed {
    /// `skipped` runs so far. `made_up` reads how many of them were made up for.
    fn read(&self, skipped: u64, mut made_up: impl FnMut() -> Result<u64>) -> Result<u64> {
        let mut missed = skipped.saturating_sub(made_up()?);
        if missed > self.0.get() && host::is_real_time() {
            sleep(TO_COREDUMP);
            missed = skipped.saturating_sub(made_up()?);
        }
        self.0.set(self.0.get().max(missed));
        Ok(self.0.get())
    }
}

/// The same, whether or not anything is attached.
pub(super) fn know_libcs(known: &Map<'_>, files: &[(fl_libc, u64)]) -> Result<()> {
    files
        .iter()
        .try_for_each(|(file, place)| known.set(file, place))
        .context("failed to tell the probe where a libc keeps its message")
}

impl Probe {
    /// Lets the kernel program read the messages of these files of glibc: for each file the address of its `__abort_msg` in a process
    /// that has mapped it at address 0.
    pub(crate) fn know_libcs(&self, files: &[(fl_libc, u64)]) -> Result<()> {
        if files.is_empty() { Ok(()) } else { know_libcs(&self.map("fl_libcs")?, files) }
    }

    /// The counters since the start.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let count = |which: fl_counter| self.count(which.0);
        let fatal = count(fl_counter::FL_FATAL)?;
        let caught = count(fl_counter::FL_CAUGHT)? + count(fl_counter::FL_MAYBE_CAUGHT)?;
        let mut losses = self.losses(&losses::CRASH)?;
        let missed = self.state.runs_missed.read(losses.get(RUNS_MISSED), || count(fl_counter::FL_MADE_UP))?;
        losses.set(RUNS_MISSED, missed);
        let (handled, ignored) = (count(fl_counter::FL_HANDLED)?, count(fl_counter::FL_IGNORED)?);
        Ok(Counters {
            matched: fatal + caught + handled + ignored,
            filtered: count(fl_counter::FL_FILTERED)?,
            fatal,
            caught,
            handled,
            ignored,
            records: count(fl_counter::FL_RECORDS)?,
            losses,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_made_up_for_is_not_missed() {
        let runs = RunsMissed::default();
        let read = |skipped, made_up| runs.read(skipped, || Ok(made_up)).unwrap();
        assert_eq!([read(0, 0), read(5, 3), read(7, 7), read(10, 7)], [0, 2, 2, 3], "the number never falls");
    }
}
