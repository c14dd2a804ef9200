//! One run of any command that watches: the checks before anything is attached, the lines that say what is watched, the loop
//! until Ctrl-C, the end of the time or of the command, and the exit status. A command gives its probe and a [`Reader`].

use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::command::{self, Running};
use crate::host;
use crate::options::Common;
use crate::output::{Shared, Writer};
use crate::probe::{Build, Descendants};
use crate::watch::{Event, Watch};

/// How many samples are taken at once: bounds the memory between the ring and the output.
pub(crate) const BATCH: usize = 64;

/// How many descendants of a command are named that go on when it has ended.
const SHOWN_MAX: usize = 5;

/// The reader and writer of a session.
pub(crate) trait Reader {
    /// The most that [`Reader::drain`] takes at once.
    const BATCH: usize = BATCH;

    /// A run without a command ends with the tally. `false` means that the last record has what the tally says.
    const TALLIES: bool = true;

    /// The run is over when all processes of `--pid` have ended.
    const ENDS_WITH_PIDS: bool = true;

    /// Readable when samples came after a pause.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Takes one batch of samples and writes their records. Returns how many were taken; fewer than [`Reader::BATCH`] means
    /// that the ring is empty.
    ///
    /// # Errors
    /// If the ring can't be read or the output takes no more.
    fn drain(&mut self) -> Result<usize>;

    /// When [`Reader::tick`] is due, if it was due last at `last`; `None` means never.
    fn next_tick(&self, _last: Instant) -> Option<Instant> {
        None
    }

    /// The interval is over.
    ///
    /// # Errors
    /// As [`Reader::drain`].
    fn tick(&mut self) -> Result<()> {
        Ok(())
    }

    /// All that is watched has ended: asked after each drain while no command runs.
    fn has_ended(&self) -> bool {
        false
    }

    /// Somebody moved the output's file away.
    fn hang_up(&mut self) {}

    /// A signal ends the run: [`Reader::finish`] is to wait for nothing that takes longer than a moment.
    fn hurry(&mut self) {}

    /// The run is over: takes what a full ring may hold and no more, and writes the last records.
    ///
    /// # Errors
    /// As [`Reader::drain`].
    fn finish(&mut self) -> Result<End>;
}

/// How a run went.
pub(crate) struct End {
    /// What was counted and what was lost, in words; `None` means that nothing is said.
    pub tally: Option<String>,
    /// Something was lost: the tally is said in any case.
    pub lost: bool,
    /// Something was lost or is missing, and `--strict` exits with 1.
    pub incomplete: bool,
}

/// The messages when everything is attached.
pub(crate) struct Announcement {
    /// What is watched, and through which hooks.
    pub watching: String,
    /// Records have names from files, which other users may own.
    pub has_names: bool,
    /// More lines.
    pub notes: Vec<String>,
    /// How the programs read kernel memory.
    pub build: Build,
}

impl Announcement {
    /// Without names and notes.
    pub(crate) fn new(subject: &str, hooks: &[String], build: Build) -> Self {
        let watching = format!("{subject} through {}", hooks.join(" and "));
        Self { watching, has_names: false, notes: Vec::new(), build }
    }
}

/// A run before anything is attached.
pub(crate) struct Start<'run> {
    common: &'run Common,
    began: Instant,
    watch: Option<Watch>,
    output: Shared,
}

/// Checks what all commands share, and opens the output.
///
/// # Errors
/// What can't be watched or written: one line with the cure.
pub(crate) fn open(common: &Common) -> Result<(Start<'_>, Writer)> {
    let began = Instant::now();
    common.check()?;
    let writer = Writer::open_run(&common.target, common.format)?;
    Ok((Start { common, began, watch: None, output: writer.shared() }, writer))
}

/// The same for a run that goes on for months: each record is written whole, and SIGHUP opens the file anew. Call it before
/// there are other threads.
pub(crate) fn open_daemon(common: &Common) -> Result<(Start<'_>, Writer)> {
    let (start, writer) = open(common)?;
    Ok((Start { watch: Some(Watch::with_hangup(common.duration)?), ..start }, writer))
}

impl<'run> Start<'run> {
    /// The probe is attached. From now on a signal ends the run in order. Call it before there are other threads.
    ///
    /// # Errors
    /// If signals can't be taken as events.
    pub(crate) fn attached(self) -> Result<Session<'run>> {
        let took = self.began.elapsed();
        let watch = self.watch.map_or_else(|| Watch::new(self.common.duration), Ok)?;
        Ok(Session { common: self.common, took, watch, output: self.output, descendants: None })
    }
}

/// A run with everything attached.
pub(crate) struct Session<'run> {
    common: &'run Common,
    took: Duration,
    watch: Watch,
    output: Shared,
    /// The descendants of the command. `None` means that there is no command.
    descendants: Option<Descendants>,
}

impl Session<'_> {
    /// The same for a run that may have a command, whose descendants these are.
    pub(crate) fn following(self, descendants: Descendants) -> Self {
        Self { descendants: Some(descendants), ..self }
    }

    /// Says what is watched, and gives back the memory that only the start has needed.
    pub(crate) fn announce(&self, words: &Announcement) {
        host::release_memory();
        if self.common.quiet {
            return;
        }
        say!("faultline: watching {}", words.watching);
        if let Some(unseen) = host::Privileges::read().and_then(host::Privileges::unseen).filter(|_| words.has_names) {
            say!("faultline: {unseen}");
        }
        for note in &words.notes {
            say!("faultline: {note}");
        }
        if self.common.verbose {
            let memory = host::resident_bytes().map_or("unknown".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
            let (took, build) = (self.took.as_secs_f64() * 1000.0, words.build.words());
            say!("faultline: attached after {took:.1} ms, {build}, resident memory {memory}");
        }
    }

    /// Runs the command if there is one, reads until the end, and says how it went. Returns what to exit with.
    ///
    /// # Errors
    /// The errors of the reader, a command that can't be run, and an output that takes no records at the end.
    pub(crate) fn run<R: Reader>(mut self, reader: &mut R) -> Result<ExitCode> {
        let (status, end) = self.read(reader)?;
        let is_wanted = self.common.verbose || end.lost || (R::TALLIES && status.is_none() && !self.common.quiet);
        if let Some(tally) = end.tally.filter(|_| is_wanted) {
            say!("faultline: {}", tally.trim_end());
        }
        if let Some(error) = self.output.borrow_mut().take_error() {
            return Err(error);
        }
        let is_incomplete = self.common.strict && end.incomplete;
        Ok(ExitCode::from(status.unwrap_or(0).max(u8::from(is_incomplete))))
    }

    /// Returns the command's status; `None` means that there was none, or that it runs on.
    fn read<R: Reader>(&mut self, reader: &mut R) -> Result<(Option<u8>, End)> {
        let command = &self.common.command;
        let mut running = if command.is_empty() { None } else { Some(Running::start(command)?) };
        let mut has_signal = false;
        // The command's status, while its descendants are waited for.
        let mut ended = None;
        let pids: &[u32] = if R::ENDS_WITH_PIDS && running.is_none() { &self.common.filter.pids } else { &[] };
        if !pids.is_empty() && !self.await_any(pids)? {
            return Ok((None, reader.finish()?));
        }
        self.await_tick(reader, Instant::now());
        loop {
            let event = self.watch.next(reader.as_fd(), self.output.borrow().waits_for())?;
            match event {
                Event::Samples => {
                    let taken = reader.drain()?;
                    self.watch.took(taken, R::BATCH);
                    if taken < R::BATCH && running.is_none() && ended.is_none() && reader.has_ended() {
                        return Ok((None, reader.finish()?));
                    }
                }
                Event::Child => {
                    if let Some(status) = running.as_mut().map(Running::ended).transpose()?.flatten() {
                        if has_signal {
                            self.output.borrow_mut().hurry();
                            reader.hurry();
                        }
                        let status = command::exit_code(status);
                        if has_signal || !self.common.wait_descendants || !self.await_descendant()? {
                            return self.leave_descendants(reader, status);
                        }
                        (running, ended) = (None, Some(status));
                    }
                }
                Event::Ended => match ended {
                    Some(status) if !matches!(self.await_descendant(), Ok(true)) => {
                        return self.leave_descendants(reader, status);
                    }
                    None if !self.await_any(pids)? => return Ok((None, reader.finish()?)),
                    _ => {}
                },
                Event::Stop { signal, from_terminal } => match &running {
                    // The command decides what the signal means, and the run ends with the command. A second signal doesn't wait for it.
                    Some(running) if !has_signal => {
                        has_signal = true;
                        if !from_terminal {
                            running.signal(signal);
                        }
                    }
                    _ => {
                        self.output.borrow_mut().hurry();
                        reader.hurry();
                        return self.leave(reader, running.as_ref(), ended);
                    }
                },
                Event::TimeUp => return self.leave(reader, running.as_ref(), ended),
                Event::Tick => {
                    let due = Instant::now();
                    reader.tick()?;
                    self.await_tick(reader, due);
                }
                Event::Hangup => reader.hang_up(),
                Event::Room => self.output.borrow_mut().flush()?,
            }
        }
    }

    /// After a pause of the whole machine there is one tick, not one for each that was missed.
    fn await_tick(&mut self, reader: &impl Reader, last: Instant) {
        if let Some(when) = reader.next_tick(last) {
            self.watch.tick_at(when);
        }
    }

    /// The descendants of the command that are alive.
    fn descendants(&self) -> Result<Vec<u32>> {
        let of_command = self.descendants.as_ref().filter(|_| !self.common.command.is_empty());
        of_command.map_or_else(|| Ok(Vec::new()), Descendants::alive)
    }

    /// Has a descendant's end come as an event. False: there is none that lives.
    fn await_descendant(&mut self) -> Result<bool> {
        let descendants = self.descendants()?;
        self.await_any(&descendants)
    }

    /// Has the end of one of these processes come as an event. False: there is none that lives.
    fn await_any(&mut self, pids: &[u32]) -> Result<bool> {
        for &pid in pids {
            if self.watch.await_end(pid)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The command has ended with this status: its living descendants go on unwatched.
    fn leave_descendants(&mut self, reader: &mut impl Reader, status: u8) -> Result<(Option<u8>, End)> {
        let mut left = self.descendants()?;
        // The kernel may have skipped our program at the end of one of them.
        left.retain(|&pid| matches!(self.watch.await_end(pid), Ok(true)));
        let end = reader.finish()?;
        self.say_left(&left);
        Ok((Some(status), end))
    }

    /// The run ends before the command, or before its descendants: then `ended` is its status.
    fn leave(
        &mut self,
        reader: &mut impl Reader,
        running: Option<&Running>,
        ended: Option<u8>,
    ) -> Result<(Option<u8>, End)> {
        if let Some(status) = ended {
            return self.leave_descendants(reader, status);
        }
        let end = reader.finish()?;
        if let Some(running) = running.filter(|_| !self.common.quiet) {
            say!("faultline: `{}` (PID {}) goes on unwatched", running.name(), running.pid());
        }
        Ok((None, end))
    }

    fn say_left(&self, left: &[u32]) {
        let pids: Vec<String> = left.iter().take(SHOWN_MAX).map(u32::to_string).collect();
        let more = if left.len() > SHOWN_MAX { ", ..." } else { "" };
        let (what, are) = if left.len() == 1 { ("descendant", "is") } else { ("descendants", "are") };
        let cure = if self.common.wait_descendants { "" } else { "; --wait-descendants waits for them" };
        if !left.is_empty() && !self.common.quiet {
            let (count, pids) = (left.len(), pids.join(", "));
            say!("faultline: {count} {what} of the command (PID {pids}{more}) {are} alive and no longer watched{cure}");
        }
    }
}
