//! One run between attaching and the last record, whatever is watched: until Ctrl-C, the end of the time or of the command.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::command::{self, Running};
use crate::watch::{Event, Watch};

/// How many samples are taken at once: bounds the memory between the ring and the output.
pub const BATCH: usize = 64;

/// What a session reads and writes.
pub trait Reader {
    /// Readable when samples came after a pause.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Takes one batch of samples and writes what it tells; returns how many were taken. Fewer than [`BATCH`]: all there were.
    ///
    /// # Errors
    /// Where the ring can't be read or the output takes no more.
    fn drain(&mut self) -> Result<usize>;

    /// The interval is over.
    ///
    /// # Errors
    /// As [`Reader::drain`].
    fn tick(&mut self) -> Result<()>;

    /// The run is over: takes what a full ring may hold and no more, and writes what is told at the end.
    ///
    /// # Errors
    /// As [`Reader::drain`].
    fn finish(&mut self) -> Result<()>;
}

/// Runs `command` if there is one, and reads until the end. Returns the command's status; None: there was none, or it runs on.
///
/// # Errors
/// What the reader says, and a command that can't be run.
pub fn run(
    reader: &mut impl Reader,
    watch: &mut Watch,
    command: &[OsString],
    interval: Option<Duration>,
) -> Result<Option<u8>> {
    let mut running = if command.is_empty() { None } else { Some(Running::start(command)?) };
    let mut told = false;
    await_tick(watch, interval);
    loop {
        match watch.next(reader.as_fd().as_fd())? {
            Event::Samples => watch.took(reader.drain()?, BATCH),
            Event::Child => {
                if let Some(status) = running.as_mut().map(Running::ended).transpose()?.flatten() {
                    reader.finish()?;
                    return Ok(Some(command::exit_code(status)));
                }
            }
            Event::Stop { signal, from_terminal } => match &running {
                // The command decides what the signal means; its end is ours. A second one doesn't wait for it.
                Some(running) if !told => {
                    told = true;
                    if !from_terminal {
                        running.signal(signal);
                    }
                }
                _ => return leave(reader, running.as_ref()),
            },
            Event::TimeUp => return leave(reader, running.as_ref()),
            Event::Tick => {
                await_tick(watch, interval);
                reader.tick()?;
            }
            Event::Hangup => {}
        }
    }
}

/// After a pause of the whole machine there is one tick, not one for each that was missed.
fn await_tick(watch: &mut Watch, interval: Option<Duration>) {
    if let Some(when) = interval.and_then(|interval| Instant::now().checked_add(interval)) {
        watch.tick_at(when);
    }
}

fn leave(reader: &mut impl Reader, running: Option<&Running>) -> Result<Option<u8>> {
    reader.finish()?;
    if let Some(running) = running {
        say!("faultline: `{}` (PID {}) goes on unwatched", running.name(), running.pid());
    }
    Ok(None)
}
