//! `faultline signal`: who sent which signal to whom; fork, exec and exit of tasks.

mod decode;
mod summary;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use decode::{AnyRecord, Decoder};
pub(crate) use summary::Pairs;

use crate::options::Common;
use crate::output::Writer;
use crate::probe::Attach;
use crate::probe::Ring;
use crate::probe::abi::signal::Sample;
use crate::probe::signal::{Counters, PeerChoice, Plan, Probe};
use crate::session::{self, Announcement, BATCH, End, Reader};
use crate::siginfo;

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Which tasks, where records go, and the rest of what all commands share.
    pub common: Common,
    /// Which signals, 1 to 64.
    pub signals: Vec<u32>,
    /// The sender must be one of these; empty: any process.
    pub from: Vec<PeerChoice>,
    /// The target must be one of these; empty: any process.
    pub to: Vec<PeerChoice>,
    /// Show fork, exec and exit.
    pub processes: bool,
    /// Count in the kernel, and summarize after each such time who sent what to whom; `None` means a record of each signal.
    pub summary: Option<Duration>,
    /// The room for pairs.
    pub max_pairs: u32,
    /// How to hook the kernel.
    pub attach: Attach,
}

/// Watches until a signal says stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (start, writer) = session::open(&options.common)?;
    let probe = Probe::start(&plan(options))?;
    let session = start.attached()?.following(probe.descendants()?);
    session.announce(&Announcement::new(&subject(options), probe.attached(), probe.build()));
    session.run(&mut Reading::new(&probe, writer, options)?)
}

/// What the kernel programs are to do.
pub(crate) fn plan(options: &Options) -> Plan {
    Plan {
        setup: options.common.setup(options.attach),
        signals: options.signals.clone(),
        from: options.from.clone(),
        to: options.to.clone(),
        processes: options.processes,
        records: options.summary.is_none(),
        pairs: options.summary.map(|_| options.max_pairs),
    }
}

/// What a run reads and writes.
struct Reading<'run> {
    probe: &'run Probe,
    ring: Ring<Sample>,
    decoder: Decoder,
    /// The time between two summaries.
    summary: Option<Duration>,
    /// `None` means that each signal has a record.
    pairs: Option<Pairs<&'run Probe>>,
    writer: Writer,
}

impl<'run> Reading<'run> {
    fn new(probe: &'run Probe, writer: Writer, options: &Options) -> Result<Self> {
        let ring = probe.ring()?;
        let pairs = options.summary.map(|_| Pairs::new(probe, options.processes)).transpose()?;
        Ok(Self { probe, ring, decoder: Decoder::new(), summary: options.summary, pairs, writer })
    }

    /// Takes one batch and writes the records whose order is certain; returns how many samples there were.
    fn take(&mut self, all: bool) -> Result<usize> {
        let mut samples = self.ring.take(BATCH)?;
        // Two processors may write to the ring in another order than they read the clock.
        samples.sort_by_key(Sample::timestamp_ns);
        for sample in &samples {
            self.decoder.take(sample)?;
        }
        while let Some(record) = self.decoder.next(all) {
            match record {
                AnyRecord::Signal(record) => self.writer.write(&*record)?,
                AnyRecord::Fork(record) => self.writer.write(&record)?,
                AnyRecord::Exec(record) => self.writer.write(&*record)?,
                AnyRecord::Exit(record) => self.writer.write(&record)?,
            }
        }
        Ok(samples.len())
    }

    fn summarize(&mut self, last: bool) -> Result<()> {
        self.pairs.as_mut().map_or(Ok(()), |pairs| self.writer.report(pairs, last))
    }
}

impl Reader for Reading<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    fn drain(&mut self) -> Result<usize> {
        let taken = self.take(false)?;
        // While more come at once, what has come is written as it fills the buffer.
        if taken < BATCH {
            self.writer.flush()?;
        }
        // Records that are held back must be looked at again although nothing new comes.
        Ok(taken.max(usize::from(self.decoder.keeps_any())))
    }

    fn next_tick(&self, last: Instant) -> Option<Instant> {
        last.checked_add(self.summary?)
    }

    fn tick(&mut self) -> Result<()> {
        self.summarize(false)
    }

    /// As many samples as a full ring may hold, and no more: others may go on sending.
    fn finish(&mut self) -> Result<End> {
        let mark = self.ring.mark();
        while !self.ring.is_past(mark) && self.take(false)? != 0 {}
        self.take(true)?;
        self.writer.flush()?;
        self.summarize(true)?;
        let mut counters = self.probe.counters()?;
        self.writer.end(|reason, records| counters.losses.add(reason, records))?;
        let lost = counters.losses.lost_any();
        Ok(End { tally: Some(tally(&counters)), lost, incomplete: lost })
    }
}

/// What is watched, for the line on standard error.
fn subject(options: &Options) -> String {
    let all = (1..=64).all(|signal| options.signals.contains(&signal));
    let names: Vec<String> = options.signals.iter().map(|&signal| siginfo::signal_name(signal)).collect();
    let what = if all { "all signals".to_owned() } else { names.join(", ") };
    let tasks = if options.processes { " and fork, exec, exit" } else { "" };
    format!("{} for {what}{tasks}", options.common.subject())
}

/// The counters in one line: what was seen, what became of it, and the losses by reason.
fn tally(counters: &Counters) -> String {
    format!(
        "{} signals matched, {} filtered out in the kernel; {} forks, {} execs, {} exits; {} records; lost: {}",
        counters.signals,
        counters.filtered,
        counters.tasks.forks,
        counters.tasks.execs,
        counters.tasks.exits,
        counters.records,
        counters.losses.line()
    )
}
