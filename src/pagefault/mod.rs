//! `faultline pagefault`: page faults, counted where they happen.

mod collect;
mod flame;
mod names;
mod record;
mod table;

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use collect::Collector;

use crate::options::Common;
use crate::output::Writer;
use crate::probe::Attach;
use crate::probe::pagefault::{By, Events, Plan, Probe};
use crate::session::{self, Announcement, End, Reader};

/// The kernel's table is emptied at least this often: it has room for the faults of this time.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);

/// A tick that comes too early by this much counts as the next one.
const TICK_EARLY: Duration = Duration::from_millis(10);

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Which tasks, where records go, and the rest of what all commands share.
    pub common: Common,
    /// What to count by.
    pub by: By,
    /// Count by the kind of memory, too.
    pub vma: bool,
    /// Faults in user mode.
    pub user: bool,
    /// Faults in kernel mode.
    pub kernel: bool,
    /// Show so many groups; `None` means 20 as text and all as JSON.
    pub top: Option<usize>,
    /// Write the counts after each such time; `None` means each second, or only at the end if a command is run.
    pub interval: Option<Duration>,
    /// Records of single faults; `None` means only counts.
    pub events: Option<Events>,
    /// How many frames, with [`By::Stack`].
    pub max_stack_depth: u32,
    /// Where to draw them.
    pub flamegraph: Option<PathBuf>,
    /// Room for groups in the kernel's table.
    pub max_groups: u32,
    /// Room for stacks there.
    pub max_stacks: u32,
    /// How to hook the kernel.
    pub attach: Attach,
    /// Where debug files are, beside the system's folders.
    pub debug_dirs: Vec<PathBuf>,
}

/// Counts until a signal says stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (start, writer) = session::open(&options.common)?;
    let flamegraph = options.flamegraph.as_deref().map(flame::create).transpose()?;
    let probe = Probe::start(&plan(options))?;
    let session = start.attached()?.following(probe.descendants()?);
    let subject = format!("{} for page faults", options.common.subject());
    let mut words = Announcement::new(&subject, probe.attached(), probe.build());
    if !probe.tells_majors() {
        words.notes.push("this kernel refuses the perf event for major faults: `major` is null".to_owned());
    }
    session.announce(&words);
    let collector = Collector::new(options, probe)?;
    let mut reading = Reading { options, collector, writer, flamegraph, next: None };
    reading.plan_next();
    session.run(&mut reading)
}

/// What the kernel programs are to do.
fn plan(options: &Options) -> Plan {
    Plan {
        setup: options.common.setup(options.attach),
        by: options.by,
        classes: options.vma,
        user: options.user,
        kernel: options.kernel,
        frames: options.max_stack_depth,
        keys: options.max_groups,
        stacks: options.max_stacks,
        events: options.events,
    }
}

/// What a run reads and writes.
struct Reading<'run> {
    options: &'run Options,
    collector: Collector,
    writer: Writer,
    /// Where the stacks are drawn at the end.
    flamegraph: Option<fs::File>,
    /// When the next table is due; `None` means at the end.
    next: Option<Instant>,
}

impl Reading<'_> {
    /// The time between two tables; `None` means only one table, at the end.
    fn interval(&self) -> Option<Duration> {
        let is_watching = self.options.common.command.is_empty() && self.options.events.is_none();
        self.options.interval.or_else(|| is_watching.then_some(Duration::from_secs(1)))
    }

    fn plan_next(&mut self) {
        self.next = self.interval().and_then(|interval| Instant::now().checked_add(interval));
    }

    fn drain_counts(&mut self) -> Result<()> {
        self.collector.drain(|record| self.writer.write(&record)).map(drop)
    }

    /// Counts the records that could not be written since the last time; returns how many.
    fn count_lost(&mut self) -> u64 {
        let mut lost = 0;
        self.writer.count(|reason, records| {
            lost += records;
            self.collector.lost(reason, records);
        });
        lost
    }

    /// Writes the table of the interval that ends now.
    fn tell(&mut self, last: bool) -> Result<()> {
        self.count_lost();
        let summary = self.collector.summary(last)?;
        self.writer.write(&summary)?;
        self.writer.flush()?;
        // If it could not be written, the next one has it all.
        if self.count_lost() == 0 {
            self.collector.begin();
        }
        Ok(())
    }
}

impl Reader for Reading<'_> {
    const TALLIES: bool = false;

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.collector.as_fd()
    }

    /// Writes one batch of events.
    fn drain(&mut self) -> Result<usize> {
        let taken = self.collector.take(|record| self.writer.write(&record))?;
        self.writer.flush()?;
        self.count_lost();
        Ok(taken)
    }

    fn next_tick(&self, last: Instant) -> Option<Instant> {
        last.checked_add(self.interval().map_or(DRAIN_INTERVAL, |interval| interval.min(DRAIN_INTERVAL)))
    }

    /// Empties the kernel's table, and writes a record if the time for it has come.
    fn tick(&mut self) -> Result<()> {
        self.drain_counts()?;
        if self.next.is_some_and(|next| next <= Instant::now() + TICK_EARLY) {
            self.tell(false)?;
            self.plan_next();
        }
        self.writer.flush()
    }

    fn hurry(&mut self) {
        self.collector.hurry();
    }

    /// Nothing is counted after this, so that the last table has everything.
    fn finish(&mut self) -> Result<End> {
        self.collector.detach();
        self.drain_counts()?;
        self.tell(true)?;
        self.writer.end(|reason, records| self.collector.lost(reason, records))?;
        if let (Some(file), Some(path)) = (self.flamegraph.take(), &self.options.flamegraph) {
            self.collector.draw(file, path)?;
            if !self.options.common.quiet {
                say!("faultline: flame graph written to `{}`", path.display());
            }
        }
        let lost = self.collector.lost_any();
        Ok(End { tally: Some(self.collector.tally()), lost, incomplete: lost })
    }
}
