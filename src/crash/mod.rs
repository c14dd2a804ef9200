//! `faultline crash`: deaths by signal, as they happen.

mod collect;
mod decode;
pub mod diagnosis;
mod evidence;
mod ledger;
mod record;
mod signature;
mod stacks;
mod text;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

pub use collect::{BATCH, Collector};
pub use decode::Decoder;
pub(crate) use decode::page_fault;
pub use ledger::{Identity, Ledger, Look};
pub use record::{Crash, Diagnosis, Disposition, EndedBy, Frame, PageFault, Seccomp, Sender, Vma};
pub use signature::{FRAMES as SIGNATURE_FRAMES, Place, signature};
pub(crate) use text::frame_place;

use crate::command::{self, Running};
use crate::host;
use crate::output::{Format, Target, Writer};
use crate::probe::crash::{Attach, Budget, GroupTable, Plan, Probe};
use crate::probe::{Build, Counters, Filter};
use crate::siginfo;
use crate::watch::{Event, Watch};

/// What a user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which tasks.
    pub filter: Filter,
    /// Which signals; empty: those whose default action is to dump core.
    pub signals: Vec<u32>,
    /// Show handled and ignored signals too.
    pub handled: bool,
    /// Show the registers.
    pub registers: bool,
    /// Show the frames.
    pub stack_trace: bool,
    /// How many of them, 1 to 127.
    pub max_stack_depth: u32,
    /// How much of the stack is copied for them, bytes; 0: frame pointers only.
    pub stack_bytes: u32,
    /// When to stop; None: when told.
    pub duration: Option<Duration>,
    /// Where records go.
    pub target: Target,
    /// How they look.
    pub format: Format,
    /// Tell the groups after each such time; None: don't count by group.
    pub summary: Option<Duration>,
    /// The room for groups.
    pub table: GroupTable,
    /// Which deaths get a record.
    pub samples: Budget,
    /// How to hook the kernel.
    pub attach: Attach,
    /// The kernel's types, where it doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Loader messages, start-up time and counters on standard error.
    pub verbose: bool,
    /// Exit with 1 where anything was lost.
    pub strict: bool,
    /// Run and watch this; empty: watch what runs already.
    pub command: Vec<OsString>,
}

/// Watches until it is told to stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub fn run(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    options.filter.check()?;
    options.filter.check_cgroup()?;
    let mut writer = Writer::open(&options.target, options.format)?;
    let plan = plan(options);
    let probe = Probe::start(&plan)?;
    let attached = started.elapsed();
    host::release_memory();
    let mut watch = Watch::new(options.duration)?;
    say!("faultline: watching {} through {}", subject(options), probe.attached().join(" and "));
    if let Some(unseen) = host::Privileges::read().and_then(host::Privileges::unseen) {
        say!("faultline: {unseen}");
    }
    if options.verbose {
        let memory =
            host::resident_bytes().map_or_else(|| "unknown".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
        say!(
            "faultline: attached after {:.1} ms, {}, resident memory {memory}",
            attached.as_secs_f64() * 1000.0,
            match probe.build() {
                Build::Plain => "reading kernel memory by a helper",
                Build::Typed => "reading kernel memory by typed loads",
            }
        );
    }
    let collector = Collector::new(&probe, Decoder::new(options.clone()), options)?;
    let mut session = Session { collector, writer: &mut writer, summary: options.summary };
    let end = session.run(&mut watch, &options.command)?;
    let counters = probe.counters()?;
    if options.verbose || end.status.is_none() || counters.lost_any() {
        say!("faultline: {}", tally(&counters));
    }
    let lost = options.strict && session.collector.lost_any()?;
    Ok(ExitCode::from(end.status.unwrap_or(0).max(u8::from(lost))))
}

/// What the kernel programs are to do.
pub fn plan(options: &Options) -> Plan {
    let signals = if options.signals.is_empty() { siginfo::CORE_SIGNALS.to_vec() } else { options.signals.clone() };
    Plan {
        filter: Filter { command: !options.command.is_empty(), ..options.filter.clone() },
        signals,
        // The signature needs its frames whatever is shown.
        frames: options.max_stack_depth.max(signature::FRAMES as u32),
        stack_bytes: if options.stack_trace { options.stack_bytes } else { 0 },
        show_handled: options.handled,
        // A budget for each group needs groups, told or not.
        groups: (options.summary.is_some() || options.samples.first.is_some()).then_some(options.table),
        samples: options.samples,
        attach: options.attach,
        btf: options.btf.clone(),
        verbose: options.verbose,
    }
}

/// One run between attaching and the last record.
struct Session<'run> {
    collector: Collector<'run>,
    writer: &'run mut Writer,
    /// Between two summaries; None: none.
    summary: Option<Duration>,
}

/// How a run ended. `status`: the command's; None: there was none, or it still runs.
struct End {
    status: Option<u8>,
}

impl Session<'_> {
    fn run(&mut self, watch: &mut Watch, command: &[OsString]) -> Result<End> {
        let mut running = if command.is_empty() { None } else { Some(Running::start(command)?) };
        let mut told = false;
        self.await_tick(watch);
        loop {
            match watch.next(self.collector.as_fd())? {
                Event::Samples => watch.took(self.drain()?, BATCH),
                Event::Child => {
                    if let Some(status) = running.as_mut().map(Running::ended).transpose()?.flatten() {
                        self.finish()?;
                        return Ok(End { status: Some(command::exit_code(status)) });
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
                    _ => return self.leave(running.as_ref()),
                },
                Event::TimeUp => return self.leave(running.as_ref()),
                Event::Tick => {
                    self.await_tick(watch);
                    self.summarize(false)?;
                }
                Event::Hangup => {}
            }
        }
    }

    /// After a pause of the whole machine there is one tick, not one for each that was missed.
    fn await_tick(&self, watch: &mut Watch) {
        if let Some(when) = self.summary.and_then(|interval| Instant::now().checked_add(interval)) {
            watch.tick_at(when);
        }
    }

    fn leave(&mut self, running: Option<&Running>) -> Result<End> {
        self.finish()?;
        if let Some(running) = running {
            say!("faultline: `{}` (PID {}) goes on unwatched", running.name(), running.pid());
        }
        Ok(End { status: None })
    }

    /// Writes the samples that are there, one batch: who watches must be heard in between.
    fn drain(&mut self) -> Result<usize> {
        let taken = self.collector.take(|record| self.writer.write(&record))?;
        self.writer.flush()?;
        Ok(taken)
    }

    fn summarize(&mut self, last: bool) -> Result<()> {
        // What names the groups first.
        self.drain()?;
        let (look, summary) = self.collector.summary(last)?;
        self.writer.write(&summary)?;
        self.writer.flush()?;
        self.collector.commit(&look);
        Ok(())
    }

    /// Writes what a full ring may hold, and no more: others may go on crashing. Then the groups.
    fn finish(&mut self) -> Result<()> {
        self.collector.take_last(|record| self.writer.write(&record))?;
        self.writer.flush()?;
        if self.summary.is_some() { self.summarize(true) } else { Ok(()) }
    }
}

/// What is watched, for the line on standard error.
pub fn subject(options: &Options) -> String {
    let mut parts = Vec::new();
    if !options.command.is_empty() {
        let words: Vec<_> = options.command.iter().map(|word| word.to_string_lossy()).collect();
        parts.push(format!("`{}` and its descendants", crate::output::escape(&words.join(" "))));
    }
    if !options.filter.pids.is_empty() {
        let pids: Vec<String> = options.filter.pids.iter().map(u32::to_string).collect();
        parts.push(format!("PID {}", pids.join(", ")));
    }
    if !options.filter.process_names.is_empty() {
        parts.push(format!("processes named *{}*", options.filter.process_names.join("*, *")));
    }
    if let Some(cgroup) = &options.filter.cgroup {
        parts.push(format!("cgroup {}", cgroup.display()));
    }
    let who = if parts.is_empty() { "all processes".to_owned() } else { parts.join(" in ") };
    let what = if options.signals.is_empty() {
        "signals that dump core".to_owned()
    } else {
        let names: Vec<String> = options.signals.iter().map(|&signal| siginfo::signal_name(signal)).collect();
        names.join(", ")
    };
    format!("{who} for {what}")
}

/// The counters in one line: what came, what became of it, what was lost and why.
fn tally(counters: &Counters) -> String {
    let losses: Vec<String> = counters.losses().iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!(
        "{} signals matched ({} fatal, {} caught, {} handled, {} ignored), {} filtered out in the kernel; {} records; lost: {}",
        counters.matched,
        counters.fatal,
        counters.caught,
        counters.handled,
        counters.ignored,
        counters.filtered,
        counters.records,
        losses.join(", ")
    )
}
