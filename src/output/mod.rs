//! Where records go: a file or standard output, as text or as JSON Lines.

mod call;
mod crash;
mod frame;
mod memory;
mod metrics;
mod outlet;
mod pagefault;
mod plain;
mod server;
mod signal;
mod stream;
mod summary;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Result;

use crate::ledger::{self, Ledger};
use crate::record::lines::InFile;
use crate::terminal::{Color, Style};
use outlet::Outlet;

pub(crate) use crate::record::{Record, SCHEMA};
pub(crate) use crate::text::{escape, lossy};
pub(crate) use crate::time::{Timestamp, boottime_ns};
pub(crate) use frame::write_places;
#[cfg(test)]
pub(crate) use metrics::{CRASH_SERIES_MAX, SENT_SERIES_MAX};
pub(crate) use metrics::{
    Dropped, ExecutableLabels, FaultLabels, GroupTotal, MetricSets, Metrics, ProcessLabels, SentLabels, Totals,
};
pub(crate) use plain::Plain;
#[cfg(any(test, fuzzing))]
pub(crate) use server::fuzz as fuzz_server;
pub(crate) use server::{Health, Life, Listen, Serve, check_web_config, serve};
pub(crate) use stream::WaitFor;
pub(crate) use summary::list_losses;

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object a line (JSON Lines)
    Json,
}

/// What `--output`, `--append` and `--mode` ask for.
#[derive(Clone, Debug)]
pub(crate) struct OutputTarget {
    /// `None` means standard output.
    pub path: Option<PathBuf>,
    /// Keep what is in the file.
    pub append: bool,
    /// The permissions of a new file.
    pub mode: u32,
    /// Whether text has colours.
    pub color: Color,
}

impl OutputTarget {
    /// How text looks there, now: a terminal changes its width.
    fn style(&self) -> Style {
        match (&self.path, self.color) {
            (None, color) => Style::of_output(color),
            (Some(_), color) => Style { has_colors: color == Color::Always, ..Style::default() },
        }
    }
}

impl Default for OutputTarget {
    fn default() -> Self {
        Self { path: None, append: false, mode: 0o600, color: Color::Auto }
    }
}

/// The open end of the pipeline. Buffered: call [`Writer::flush`] when there is nothing more to write for now.
pub(crate) struct Writer {
    outlet: Shared,
    target: OutputTarget,
    format: Format,
    /// A run goes on where records can't be written, and counts them.
    is_run: bool,
    /// What the file has already.
    known: InFile,
}

/// What a run writes to, and looks after while it waits for something to write.
pub(crate) type Shared = Rc<RefCell<Outlet>>;

impl Writer {
    /// Opens the target, for as long as it takes: a signal ends us at once. An error of writing is one of the caller's.
    pub(crate) fn open(target: &OutputTarget, format: Format) -> Result<Self> {
        Self::open_as(target, format, false)
    }

    /// Opens the target for a run that takes signals as events: it waits for no reader longer than it may.
    pub(crate) fn open_run(target: &OutputTarget, format: Format) -> Result<Self> {
        Self::open_as(target, format, true)
    }

    fn open_as(target: &OutputTarget, format: Format, is_run: bool) -> Result<Self> {
        let outlet = Rc::new(RefCell::new(Outlet::open(target, !is_run)?));
        Ok(Self { outlet, target: target.clone(), format, is_run, known: InFile::default() })
    }

    /// The outlet, for the loop that waits for it.
    pub(crate) fn shared(&self) -> Shared {
        self.outlet.clone()
    }

    /// Opens the file again, after it was moved away; standard output stays as it is.
    ///
    /// # Errors
    /// If the file can't be opened; the old one stays.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.outlet.borrow_mut().reopen(&self.target)
    }

    fn encode(&mut self, record: &impl Record) -> Result<Vec<u8>> {
        match self.format {
            Format::Text => Ok(record.text_as(self.target.style()).into_bytes()),
            Format::Json => {
                let Self { outlet, known, .. } = self;
                record.json(move || {
                    known.turn_to(outlet.borrow_mut().continuity());
                    known
                })
            }
        }
    }

    /// Writes one record.
    ///
    /// # Errors
    /// If the reader has gone ([`is_closed_pipe`]). A run counts what can't be written for another reason.
    pub(crate) fn write(&mut self, record: &impl Record) -> Result<()> {
        let line = self.encode(record)?;
        self.outlet.borrow_mut().write(&line)
    }

    /// Writes one record and flushes it. If that fails, nothing of it stays in a file, so that every line is a record.
    ///
    /// # Errors
    /// If the target takes no more: a full disk, a closed pipe, a reader that has stalled.
    pub(crate) fn write_whole(&mut self, record: &impl Record) -> Result<()> {
        let line = self.encode(record)?;
        self.outlet.borrow_mut().write_whole(&line)
    }

    /// Writes one interval of a ledger.
    ///
    /// # Errors
    /// As [`Writer::write`], and where the ledger can't be read.
    pub(crate) fn report(&mut self, ledger: &mut impl Ledger, last: bool) -> Result<()> {
        let mut write = |summary: &_| {
            let before = self.outlet.borrow().lost();
            self.write(summary).and_then(|()| self.flush())?;
            Ok(self.outlet.borrow().lost() == before)
        };
        ledger::report(ledger, last, |_, _| Ok(()), &mut write).map(drop)
    }

    /// Writes what is buffered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let mut outlet = self.outlet.borrow_mut();
        if self.is_run { outlet.flush() } else { outlet.write_out() }
    }

    /// Counts by reason the records that were lost since the last time.
    pub(crate) fn count(&self, mut lost: impl FnMut(&'static str, u64)) {
        for (reason, records) in self.outlet.borrow_mut().take_losses() {
            lost(reason, records);
        }
    }

    /// The run is over: waits for the reader, but not for ever, and counts by reason what was lost since the last time.
    pub(crate) fn end(&mut self, lost: impl FnMut(&'static str, u64)) -> Result<()> {
        self.outlet.borrow_mut().settle()?;
        self.count(lost);
        Ok(())
    }
}

/// Has the reader of our output gone? That ends a run quietly: `faultline crash | head`.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
