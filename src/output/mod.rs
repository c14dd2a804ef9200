//! Where records go: a file or standard output, as text or as JSON Lines.

mod call;
mod crash;
mod memory;
mod metrics;
mod pagefault;
mod pipe;
mod server;
mod signal;
mod summary;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::ledger::{self, Ledger};
use pipe::Pipe;

pub use crate::record::{Record, SCHEMA};
pub use crate::text::{escape, lossy};
pub use crate::time::{Timestamp, boottime_ns};
pub(crate) use crash::frame_place;
#[cfg(test)]
pub(crate) use metrics::SENT_SERIES_MAX;
pub use metrics::{
    Beside, Dropped, ExecutableLabels, FaultLabels, GroupTotal, Metrics, ProcessLabels, SentLabels, Totals,
};
#[cfg(any(test, fuzzing))]
pub(crate) use server::fuzz as fuzz_server;
pub use server::{Health, Life, Listen, Serve, serve};

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object a line (JSON Lines)
    Json,
}

/// What `--output` and `--append` ask for.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `None` means standard output.
    pub path: Option<PathBuf>,
    /// Keep what is in the file.
    pub append: bool,
}

/// The open end of the pipeline. Buffered: call [`Writer::flush`] when there is nothing more to write for now.
pub struct Writer {
    to: BufWriter<Box<dyn Write>>,
    /// The file behind `to`, if it is one: it is cut back if a record did not fit.
    file: Option<File>,
    /// Standard output, if it is a pipe and records are written whole: a reader that stalls must not stop us.
    pipe: Option<Pipe>,
    target: Target,
    format: Format,
}

/// Opens what `target` names. `whole`: for appending, so that it may be cut at any time.
fn open(target: &Target, whole: bool) -> Result<(Box<dyn Write>, Option<File>)> {
    let Some(path) = &target.path else {
        if !whole {
            return Ok((Box::new(io::stdout()), None));
        }
        // Not through io::stdout(), which keeps a buffer of its own.
        let what = "failed to open standard output";
        let own = File::from(io::stdout().as_fd().try_clone_to_owned().context(what)?);
        return Ok((Box::new(own.try_clone().context(what)?), Some(own)));
    };
    let what = || format!("failed to open `{}`", path.display());
    let mut options = OpenOptions::new();
    let append = target.append || whole;
    let file = options.create(true).write(true).append(append).truncate(!append).open(path).with_context(what)?;
    if whole && !target.append && file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        file.set_len(0).with_context(what)?;
    }
    let behind = file.try_clone().with_context(what)?;
    Ok((Box::new(file), Some(behind)))
}

impl Writer {
    /// Opens the target.
    ///
    /// # Errors
    /// If the file can't be opened for writing.
    pub fn open(target: &Target, format: Format) -> Result<Self> {
        Self::open_as(target, format, false)
    }

    /// Opens the target for [`Writer::write_whole`].
    ///
    /// # Errors
    /// If the file can't be opened for writing.
    pub fn open_whole(target: &Target, format: Format) -> Result<Self> {
        Self::open_as(target, format, true)
    }

    fn open_as(target: &Target, format: Format, whole: bool) -> Result<Self> {
        let (to, file) = open(target, whole)?;
        let pipe = if whole && target.path.is_none() { Pipe::open(&io::stdout()) } else { None };
        Ok(Self { pipe, to: BufWriter::with_capacity(64 * 1024, to), file, target: target.clone(), format })
    }

    /// Opens the file again, after it was moved away; standard output stays as it is.
    ///
    /// # Errors
    /// If the file can't be opened; the old one stays.
    pub fn reopen(&mut self) -> Result<()> {
        if self.target.path.is_none() {
            return Ok(());
        }
        let (to, file) = open(&Target { append: true, ..self.target.clone() }, true)?;
        self.to = BufWriter::with_capacity(64 * 1024, to);
        self.file = file;
        Ok(())
    }

    fn name(&self) -> String {
        self.target.path.as_deref().map_or("standard output".to_owned(), |path| format!("`{}`", path.display()))
    }

    fn encode(&self, record: &impl Record) -> Result<Vec<u8>> {
        match self.format {
            Format::Text => Ok(record.text().into_bytes()),
            Format::Json => {
                let mut line = serde_json::to_vec(record).context("failed to encode a record")?;
                line.push(b'\n');
                Ok(line)
            }
        }
    }

    /// Writes one record.
    ///
    /// # Errors
    /// If the target takes no more: a full disk, a closed pipe ([`is_closed_pipe`]).
    pub fn write(&mut self, record: &impl Record) -> Result<()> {
        let line = self.encode(record)?;
        self.to.write_all(&line).with_context(|| format!("failed to write {}", self.name()))
    }

    /// Writes one record and flushes it. If that fails, nothing of it stays in a file, so that every line is a record.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write_whole(&mut self, record: &impl Record) -> Result<()> {
        let line = self.encode(record)?;
        if let Some(pipe) = &mut self.pipe {
            let result = pipe.write_line(&line);
            return result.with_context(|| format!("failed to write {}", self.name()));
        }
        let before = self.file.as_ref().and_then(|file| file.metadata().ok()).filter(|metadata| metadata.is_file());
        let result = self.to.write_all(&line).and_then(|()| self.to.flush());
        if result.is_err() {
            // What is buffered would be written with the next record: drop it.
            let nowhere: Box<dyn Write> = Box::new(io::sink());
            let buffered = std::mem::replace(&mut self.to, BufWriter::new(nowhere));
            self.to = BufWriter::with_capacity(64 * 1024, buffered.into_parts().0);
            if let (Some(file), Some(before)) = (&mut self.file, before) {
                // If this fails too, the next line is damaged, and `faultline report` reports it. The position of a file that
                // isn't opened for appending has moved on, and must go back.
                let _ = file.set_len(before.len()).and_then(|()| file.seek(SeekFrom::End(0)));
            }
        }
        result.with_context(|| format!("failed to write {}", self.name()))
    }

    /// Writes one interval of a ledger.
    ///
    /// # Errors
    /// As [`Writer::write`], and where the ledger can't be read.
    pub fn report(&mut self, ledger: &mut impl Ledger, last: bool) -> Result<()> {
        let write = |summary: &_| self.write(summary).and_then(|()| self.flush()).map(|()| true);
        ledger::report(ledger, last, |_, _| Ok(()), write).map(drop)
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> Result<()> {
        self.to.flush().with_context(|| format!("failed to write {}", self.name()))
    }
}

/// Has the reader of our output gone? That ends a run quietly: `faultline crash | head`.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
