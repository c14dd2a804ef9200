//! Where records are written to. If that takes no more, the run goes on, and counts what it could not write.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::OutputTarget;
use super::plain::Plain;
use super::stream::{Stream, WaitFor};
use crate::place;
use crate::probe::losses::{OUTPUT_BLOCKED, WRITE_FAILED};
use crate::record::lines::Continuity;

/// What is kept for a reader that is slow, bytes.
const BACKLOG: usize = 4 << 20;

/// What is written at once.
const BATCH: usize = 64 * 1024;

/// How long a reader may take nothing at the end of a run that no signal has ended.
const LAST_IDLE: Duration = Duration::from_secs(5);

/// As long as a report waits that a signal ends at once.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long it is waited for at the end after a signal, which is to be obeyed within a second.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// How often a pipe that nobody reads yet is tried, and after how many times faultline says so.
const TRY_AGAIN: Duration = Duration::from_millis(50);
const TRIES_UNSAID: u32 = 20;

enum Sink {
    /// It needs no reader; or we may wait for one, because a signal ends us at once.
    Plain(Plain),
    /// It has a reader.
    Stream(Stream),
}

/// An open target.
pub(crate) struct Outlet {
    sink: Sink,
    /// As it is named in messages.
    name: String,
    /// Records that a reader did not take in time.
    blocked: u64,
    /// Records that could not be written.
    failed: u64,
    /// Why the last one could not be written; `None` means that it could, or that this was reported at the end.
    error: Option<String>,
    /// A signal has ended the run.
    is_hurried: bool,
}

/// Opens the file that `target` names, for appending; emptied unless that is what is wanted. A pipe that nobody reads is waited for.
fn open(target: &OutputTarget, path: &std::path::Path) -> Result<File> {
    let open = if target.append { place::open } else { place::create };
    let mode = target.mode;
    let mut tries = 0;
    loop {
        match open(path, mode) {
            Err(error) if place::is_unread(&error) => {}
            other => return other,
        }
        tries += 1;
        if tries == TRIES_UNSAID {
            say!("faultline: waiting for a reader of `{}`", path.display());
        }
        std::thread::sleep(TRY_AGAIN);
    }
}

/// May writing to it take as long as somebody likes?
fn has_reader(file: &File) -> bool {
    use std::os::unix::fs::FileTypeExt;
    file.is_terminal()
        || file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo() || metadata.file_type().is_socket())
}

impl Sink {
    fn new(file: File, may_wait: bool) -> Self {
        let is_stream = has_reader(&file) && !may_wait;
        if is_stream { Self::Stream(Stream::new(file)) } else { Self::Plain(Plain::new(file)) }
    }
}

impl Outlet {
    /// Opens what `target` names. With `may_wait` a reader is waited for, however long that takes.
    pub(crate) fn open(target: &OutputTarget, may_wait: bool) -> Result<Self> {
        let (file, name) = match &target.path {
            None => {
                let what = "failed to open standard output";
                (File::from(io::stdout().as_fd().try_clone_to_owned().context(what)?), "standard output".to_owned())
            }
            Some(path) => {
                let name = format!("`{}`", path.display());
                (open(target, path).with_context(|| format!("failed to open {name}"))?, name)
            }
        };
        // What was opened by its name doesn't wait in any case.
        let sink = Sink::new(file, may_wait && target.path.is_none());
        Ok(Self { sink, name, blocked: 0, failed: 0, error: None, is_hurried: false })
    }

    /// Opens the file again, after it was moved away.
    pub(crate) fn reopen(&mut self, target: &OutputTarget) -> Result<()> {
        let Some(path) = &target.path else { return Ok(()) };
        let file = place::open(path, target.mode)
            .map_err(|error| place::explain(error).context(format!("failed to open {}", self.name)))?;
        self.sink = Sink::new(file, false);
        Ok(())
    }

    /// Does what was written stand in front of what is written next?
    pub(crate) fn continuity(&mut self) -> Continuity {
        match &mut self.sink {
            Sink::Plain(plain) => plain.continuity(),
            Sink::Stream(_) => Continuity::Stream,
        }
    }

    /// An error of writing, with the cure where there is one. That the reader has gone stays an error of its own.
    fn explain(&self, error: io::Error) -> anyhow::Error {
        if error.kind() == ErrorKind::BrokenPipe {
            return anyhow::Error::new(error).context(format!("failed to write {}", self.name));
        }
        anyhow!("failed to write {}: {}", self.name, place::why(&error))
    }

    /// Takes a record. It is written now or later; what there is no room for is counted.
    ///
    /// # Errors
    /// If the reader has gone.
    pub(crate) fn write(&mut self, record: &[u8]) -> Result<()> {
        let is_full = match &mut self.sink {
            Sink::Plain(plain) => {
                plain.add(record);
                plain.waiting() > BATCH
            }
            Sink::Stream(stream) => {
                let fits = |stream: &Stream| stream.waiting() == 0 || stream.waiting() + record.len() <= BACKLOG;
                let is_blocked = !fits(stream);
                let result = if is_blocked { stream.push_until(fits) } else { Ok(()) };
                match result {
                    Ok(()) => stream.add(record),
                    Err(error) if error.kind() == ErrorKind::TimedOut => self.blocked += 1,
                    Err(error) => return self.fail(1, error),
                }
                !is_blocked && stream.waiting() > BATCH
            }
        };
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Writes what waits, as far as there is room. What can't be written is counted, and reported once.
    ///
    /// # Errors
    /// If the reader has gone.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let (records, error) = match &mut self.sink {
            Sink::Plain(plain) if plain.waiting() == 0 => return Ok(()),
            Sink::Plain(plain) => match plain.flush() {
                Ok(()) => {
                    if self.error.take().is_some() {
                        say!("faultline: records are written again");
                    }
                    return Ok(());
                }
                Err(unwritten) => (unwritten.records, unwritten.error),
            },
            Sink::Stream(stream) => match stream.push() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(self.explain(error)),
                Err(error) => (stream.give_up(), error),
            },
        };
        self.fail(records, error)
    }

    fn fail(&mut self, records: u64, error: io::Error) -> Result<()> {
        if error.kind() == ErrorKind::BrokenPipe {
            return Err(self.explain(error));
        }
        self.failed += records;
        let error = format!("{:#}", self.explain(error));
        if self.error.is_none() {
            say!("faultline: {error}: the run goes on, and what is not written is counted");
        }
        self.error = Some(error);
        Ok(())
    }

    /// Writes one record at once, or nothing of it.
    pub(crate) fn write_whole(&mut self, record: &[u8]) -> Result<()> {
        let result = match &mut self.sink {
            Sink::Plain(plain) => {
                plain.add(record);
                plain.flush().map_err(|unwritten| unwritten.error)
            }
            Sink::Stream(stream) => stream.write_whole(record),
        };
        result.map_err(|error| self.explain(error))
    }

    /// Writes everything, and waits for it.
    pub(crate) fn write_out(&mut self) -> Result<()> {
        let result = match &mut self.sink {
            Sink::Plain(plain) => plain.flush().map_err(|unwritten| unwritten.error),
            Sink::Stream(stream) => stream.settle(Some(FOREVER), Duration::ZERO),
        };
        result.map_err(|error| self.explain(error))
    }

    /// A signal has ended the run: no reader is waited for much longer.
    pub(crate) fn hurry(&mut self) {
        self.is_hurried = true;
        if let Sink::Stream(stream) = &mut self.sink {
            stream.hurry(LAST_WAIT);
        }
    }

    /// The run is over: waits for the reader, but not for ever. What is left is counted.
    ///
    /// # Errors
    /// If the reader has gone.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.flush()?;
        let idle = if self.is_hurried { None } else { Some(LAST_IDLE) };
        if let Sink::Stream(stream) = &mut self.sink {
            match stream.settle(idle, LAST_WAIT) {
                Ok(()) => self.blocked += stream.give_up(),
                Err(error) => {
                    let records = stream.give_up();
                    return self.fail(records, error);
                }
            }
        }
        Ok(())
    }

    /// What has to happen before more can be written; [`Outlet::flush`] does it then.
    pub(crate) fn waits_for(&self) -> WaitFor<'_> {
        match &self.sink {
            Sink::Plain(_) => WaitFor::Nothing,
            Sink::Stream(stream) => stream.waits_for(),
        }
    }

    /// Records that were lost and not taken.
    pub(crate) fn lost(&self) -> u64 {
        self.blocked + self.failed
    }

    /// Records that were lost since the last time, by reason.
    pub(crate) fn take_losses(&mut self) -> [(&'static str, u64); 2] {
        [(OUTPUT_BLOCKED, std::mem::take(&mut self.blocked)), (WRITE_FAILED, std::mem::take(&mut self.failed))]
    }

    /// Why the last records could not be written, if they could not.
    pub(crate) fn take_error(&mut self) -> Option<anyhow::Error> {
        self.error.take().map(|error| anyhow!(error))
    }
}
