//! `faultline crash`: deaths by signal, as they happen. As a library: [`Tracer`].

mod collect;
mod counted;
mod decode;
mod departed;
mod ending;
mod facade;
mod known;
mod labels;
mod leave;
mod ledger;
mod libcs;
mod modules;
mod pending;
mod record;
mod room;
mod sample;
mod sender;
mod space;
mod stacks;
mod table;
mod tracer;
mod turns;
mod verdicts;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use collect::Collector;
pub(crate) use decode::Decoder;
#[cfg(any(test, fuzzing))]
pub(crate) use ending::Proved;
pub use facade::{Confidence, Crash, Diagnosis, Disposition, Frame, Sender};
pub(crate) use record::RecordedCalls;
pub use tracer::{Tracer, Tracing};

use crate::options::Common;
use crate::output::Writer;
use crate::probe::crash::{Budget, GroupTable, Plan, Probe};
use crate::probe::{Attach, Counters};
use crate::session::{self, Announcement, End, Reader};
use crate::siginfo::{self, SIGABRT};

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Which tasks, where records go, and the rest of what all commands share.
    pub common: Common,
    /// Which signals; empty: those whose default action is to dump core.
    pub signals: Vec<u32>,
    /// Show handled and ignored signals too.
    pub handled: bool,
    /// Show the registers.
    pub registers: bool,
    /// Show the frames; without them a record's text is one line.
    pub stack_trace: bool,
    /// How many of them, 1 to 127.
    pub max_stack_depth: u32,
    /// How much of the stack is copied for them, bytes; 0: frame pointers only.
    pub stack_bytes: u32,
    /// Write the groups after each such time; `None` means that there are no summaries.
    pub summary: Option<Duration>,
    /// The room for groups.
    pub table: GroupTable,
    /// Which deaths get a record.
    pub samples: Budget,
    /// How to hook the kernel.
    pub attach: Attach,
    /// Where debug files are looked for, before the system's own folder.
    pub debug_dirs: Vec<PathBuf>,
    /// Fetch those that are not here from the servers of DEBUGINFOD_URLS.
    pub debuginfod: bool,
}

/// Watches until a signal says stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (start, writer) = session::open(&options.common)?;
    let probe = Probe::start(&plan(options))?;
    let session = start.attached()?.following(probe.descendants()?);
    let words = Announcement::new(&subject(options), probe.attached(), probe.build());
    session.announce(&Announcement { has_names: true, ..words });
    let collector = Collector::new(&probe, Decoder::new(options.clone()), options)?;
    session.run(&mut Reading { collector, writer, summary: options.summary })
}

/// Which signals are watched.
fn signals(options: &Options) -> &[u32] {
    if options.signals.is_empty() { &siginfo::CORE_SIGNALS } else { &options.signals }
}

/// What the kernel programs are to do.
pub(crate) fn plan(options: &Options) -> Plan {
    Plan {
        setup: options.common.setup(options.attach),
        signals: signals(options).to_vec(),
        // A group shows its frames whatever a record does.
        frames: options.max_stack_depth.max(decode::GROUP_FRAMES as u32),
        // What is one bug is seen by the stack, whatever is shown.
        stack_bytes: options.stack_bytes,
        show_handled: options.handled,
        // A budget for each group needs groups, with summaries or without.
        groups: (options.summary.is_some() || options.samples.first.is_some()).then_some(options.table),
        samples: options.samples,
        libcs: if signals(options).contains(&SIGABRT) { libcs::known().take_news() } else { Vec::new() },
    }
}

/// What a run reads and writes.
struct Reading<'run> {
    collector: Collector<'run>,
    writer: Writer,
    /// The time between two summaries of the groups; `None` means that there are none.
    summary: Option<Duration>,
}

impl Reading<'_> {
    fn summarize(&mut self, last: bool) -> Result<()> {
        // First the samples that name the groups.
        self.drain()?;
        let interval = self.summary.filter(|_| !last).unwrap_or(Duration::MAX);
        self.collector.settle(interval, |record| self.writer.write(&record))?;
        self.writer.report(&mut self.collector, last)
    }
}

impl Reader for Reading<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.collector.as_fd()
    }

    /// One batch, so that signals are looked at in between.
    fn drain(&mut self) -> Result<usize> {
        let taken = self.collector.take(|record| self.writer.write(&record))?;
        self.writer.flush()?;
        self.writer.count(|reason, records| self.collector.lost(reason, records));
        Ok(taken)
    }

    fn next_tick(&self, last: Instant) -> Option<Instant> {
        last.checked_add(self.summary?)
    }

    fn tick(&mut self) -> Result<()> {
        self.summarize(false)
    }

    fn hurry(&mut self) {
        self.collector.hurry();
    }

    /// As many samples as a full ring may hold, and no more: others may go on crashing. Then the groups.
    fn finish(&mut self) -> Result<End> {
        self.collector.take_last(|record| self.writer.write(&record))?;
        self.writer.flush()?;
        if self.summary.is_some() {
            self.summarize(true)?;
        }
        self.writer.end(|reason, records| self.collector.lost(reason, records))?;
        let counters = self.collector.counters()?;
        Ok(End {
            tally: Some(tally(&counters)),
            lost: counters.losses.lost_any(),
            incomplete: self.collector.lost_any()?,
        })
    }
}

/// What is watched, for the line on standard error.
pub(crate) fn subject(options: &Options) -> String {
    let who = options.common.subject();
    let what = if options.signals.is_empty() {
        "signals that dump core".to_owned()
    } else {
        let names: Vec<String> = options.signals.iter().map(|&signal| siginfo::signal_name(signal)).collect();
        names.join(", ")
    };
    format!("{who} for {what}")
}

/// The counters in one line: what was seen, what became of it, and the losses by reason.
fn tally(counters: &Counters) -> String {
    format!(
        "{} signals matched ({} fatal, {} caught, {} handled, {} ignored), {} filtered out in the kernel; {} records; lost: {}",
        counters.matched,
        counters.fatal,
        counters.caught,
        counters.handled,
        counters.ignored,
        counters.filtered,
        counters.records,
        counters.losses.line()
    )
}
