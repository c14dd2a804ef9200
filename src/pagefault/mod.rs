//! `faultline pagefault`: page faults, counted where they happen.

mod collect;
mod flame;
mod names;
mod record;
mod table;
mod text;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

pub use collect::{Collector, Labels};
pub use record::{Fault, Faults, File, Group, Kind, Mapping, Omitted, Summary};

use crate::host;
use crate::options::Common;
use crate::output::Writer;
use crate::probe::pagefault::{Attach, By, Events, Plan, Probe};
use crate::session::{self, Reader};
use crate::watch::Watch;

/// The kernel's table is emptied at least this often: it has room for what faults in this time.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);

/// A tick that comes this much too early is as good as the next one.
const TICK_EARLY: Duration = Duration::from_millis(10);

/// What a user asked for.
#[derive(Clone, Debug)]
pub struct Options {
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
    /// Show so many groups; None: 20 as text, all as JSON.
    pub top: Option<usize>,
    /// Tell the counts after each such time; None: each second where no command is run, else at the end only.
    pub interval: Option<Duration>,
    /// Records of single faults; None: none.
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

/// Counts until it is told to stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub fn run(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    options.common.check()?;
    let mut writer = Writer::open(&options.common.target, options.common.format)?;
    let flamegraph = options.flamegraph.as_deref().map(flame::create).transpose()?;
    let probe = Probe::start(&plan(options))?;
    let attached = started.elapsed();
    host::release_memory();
    let mut watch = Watch::new(options.common.duration)?;
    announce(options, &probe);
    if options.common.verbose {
        say!("faultline: attached after {:.1} ms, {}", attached.as_secs_f64() * 1000.0, probe.build().words());
    }
    let collector = Collector::new(options, probe)?;
    let mut session = Session { options, collector, writer: &mut writer, next: None };
    let status = session.run(&mut watch)?;
    let mut collector = session.collector;
    if let (Some(file), Some(path)) = (flamegraph, &options.flamegraph) {
        collector.draw(file, path)?;
        say!("faultline: flame graph written to `{}`", path.display());
    }
    if options.common.verbose || collector.lost_any() {
        say!("faultline: {}", collector.tally());
    }
    let lost = options.common.strict && collector.lost_any();
    Ok(ExitCode::from(status.unwrap_or(0).max(u8::from(lost))))
}

/// Says what is watched, and what is missing.
fn announce(options: &Options, probe: &Probe) {
    let who = options.common.subject();
    say!("faultline: watching {who} for page faults through {}", probe.attached().join(" and "));
    if !probe.tells_majors() {
        say!("faultline: this kernel refuses the perf event for major faults: `major` is null");
    }
}

/// What the kernel programs are to do.
fn plan(options: &Options) -> Plan {
    Plan {
        filter: options.common.filter.clone(),
        by: options.by,
        classes: options.vma,
        user: options.user,
        kernel: options.kernel,
        frames: options.max_stack_depth,
        keys: options.max_groups,
        stacks: options.max_stacks,
        events: options.events,
        attach: options.attach,
        btf: options.common.btf.clone(),
        verbose: options.common.verbose,
    }
}

/// One run between attaching and the last record.
struct Session<'run> {
    options: &'run Options,
    collector: Collector,
    writer: &'run mut Writer,
    /// When the next table is due; None: at the end.
    next: Option<Instant>,
}

impl Session<'_> {
    /// Between two tables; None: only one, at the end.
    fn interval(&self) -> Option<Duration> {
        let is_watching = self.options.common.command.is_empty() && self.options.events.is_none();
        self.options.interval.or_else(|| is_watching.then_some(Duration::from_secs(1)))
    }

    fn run(&mut self, watch: &mut Watch) -> Result<Option<u8>> {
        let interval = self.interval();
        self.plan_next();
        let drain = interval.map_or(DRAIN_INTERVAL, |interval| interval.min(DRAIN_INTERVAL));
        let command = &self.options.common.command;
        session::run(self, watch, command, Some(drain))
    }

    fn plan_next(&mut self) {
        self.next = self.interval().and_then(|interval| Instant::now().checked_add(interval));
    }

    fn drain_counts(&mut self) -> Result<()> {
        self.collector.drain(|record| self.writer.write(&record)).map(drop)
    }

    /// Writes the table of the interval that ends now.
    fn tell(&mut self, last: bool) -> Result<()> {
        let summary = self.collector.summary(last)?;
        self.writer.write(&summary)?;
        self.writer.flush()?;
        self.collector.commit(&summary);
        Ok(())
    }
}

impl Reader for Session<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.collector.as_fd()
    }

    /// Writes one batch of events.
    fn drain(&mut self) -> Result<usize> {
        let taken = self.collector.take(|record| self.writer.write(&record))?;
        self.writer.flush()?;
        Ok(taken)
    }

    /// Empties the kernel's table, and tells what was in it when the time for that has come.
    fn tick(&mut self) -> Result<()> {
        self.drain_counts()?;
        if self.next.is_some_and(|next| next <= Instant::now() + TICK_EARLY) {
            self.tell(false)?;
            self.plan_next();
        }
        self.writer.flush()
    }

    /// Nothing is counted after this: the last table has it all.
    fn finish(&mut self) -> Result<()> {
        self.collector.detach();
        self.drain_counts()?;
        self.tell(true)
    }
}
