//! Writes the agent's records: an output that fails for a while is no reason to end.

use anyhow::{Result, bail};

use crate::output::{Record, Writer, is_closed_pipe};

/// The writer, and whether it works.
pub(super) struct Output {
    writer: Writer,
    /// The last record could not be written; this is reported once.
    is_failing: bool,
}

impl Output {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer, is_failing: false }
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
