//! Writes the agent's records: an output that fails for a while is no reason to end.

use std::time::Duration;

use anyhow::{Result, bail};

use super::idle::{Fate, Idle};
use crate::output::{Record, Writer, is_closed_pipe};
use crate::record::summary::Summary;

/// The writer, and whether it works.
pub(super) struct Output {
    writer: Writer,
    /// The last record could not be written; this is reported once.
    is_failing: bool,
    idle: Idle,
    /// Summaries and heartbeats that were written and not counted yet.
    told: u64,
}

impl Output {
    /// With a summary of crashes every `interval`.
    pub(super) fn new(writer: Writer, interval: Duration) -> Self {
        Self { writer, is_failing: false, idle: Idle::new(interval), told: 0 }
    }

    /// How many summaries of crashes, and heartbeats, were written since the last time.
    pub(super) fn take_told(&mut self) -> u64 {
        std::mem::take(&mut self.told)
    }

    /// Writes a summary of crashes, or a heartbeat in place of those without events. False: it could not be written.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub(super) fn tell(&mut self, summary: &Summary) -> Result<bool> {
        let heartbeat = self.idle.take(summary);
        let is_written = heartbeat.map(|heartbeat| self.count(&heartbeat)).transpose()?;
        match self.idle.decide(summary, is_written) {
            Fate::Covered => Ok(true),
            Fate::Failed if !summary.interval.last => Ok(false),
            Fate::Failed | Fate::Due => self.count(summary),
        }
    }

    fn count(&mut self, record: &impl Record) -> Result<bool> {
        let is_written = self.write(record)?;
        self.told += u64::from(is_written);
        Ok(is_written)
    }

    /// Opens the file again, after it was moved away.
    pub(super) fn reopen(&mut self) -> Result<()> {
        self.writer.reopen()
    }

    /// The run is over: the reader gets a moment for the rest of a record that it has begun to take.
    ///
    /// # Errors
    /// If it doesn't take it.
    pub(super) fn end(&mut self) -> Result<()> {
        let mut cut = 0;
        self.writer.end(|_, records| cut += records)?;
        if cut != 0 {
            bail!("failed to write the end of the last record: its reader has stalled");
        }
        Ok(())
    }

    /// Writes a record as a whole. False: it could not be written, which is reported when that begins and when it ends.
    ///
    /// # Errors
    /// If the reader has gone.
    pub(super) fn write(&mut self, record: &impl Record) -> Result<bool> {
        match self.writer.write_whole(record) {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    say!("faultline: records are written again");
                }
                Ok(true)
            }
            Err(error) if is_closed_pipe(&error) => Err(error),
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    say!("faultline: {error:#}: counting goes on, and the next summary that can be written has it all");
                }
                Ok(false)
            }
        }
    }
}
