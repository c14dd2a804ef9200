//! `faultline pagefault`: page faults, counted where they happen.

mod flame;
mod names;
mod record;
mod table;
mod text;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

pub use record::{Fault, Faults, File, Group, Kind, Mapping, Omitted, Summary};

use self::names::{Names, is_alive};
use self::record::{by_name, hook_name};
use self::table::Table;
use crate::command::{self, Running};
use crate::host;
use crate::output::{Format, SCHEMA, Target, Timestamp, Writer, boottime_ns};
use crate::probe::abi::pagefault::Sample;
use crate::probe::pagefault::{Attach, By, Counters, Events, Plan, Probe};
use crate::probe::{Build, Filter, Ring};
use crate::watch::{Event, Watch};

/// How many samples are taken before what else happens is looked at.
const BATCH: usize = 256;

/// More batches than a full ring holds.
const LAST_BATCHES: usize = 512;

/// The kernel's table is emptied at least this often: it has room for what faults in this time.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);

/// How many groups the text shows without `--top`.
const TEXT_ROWS: usize = 20;

/// What a user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which tasks.
    pub filter: Filter,
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
    /// When to stop; None: when told.
    pub duration: Option<Duration>,
    /// Where records go.
    pub target: Target,
    /// How they look.
    pub format: Format,
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

/// Counts until it is told to stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub fn run(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    options.filter.check()?;
    options.filter.check_cgroup()?;
    let mut writer = Writer::open(&options.target, options.format)?;
    let flamegraph = options.flamegraph.as_deref().map(flame::create).transpose()?;
    let probe = Probe::start(&plan(options))?;
    let attached = started.elapsed();
    host::release_memory();
    let mut watch = Watch::new(options.duration)?;
    say!("faultline: counting page faults of {} through {}", subject(options), probe.attached().join(" and "));
    if options.verbose {
        say!(
            "faultline: attached after {:.1} ms, {}",
            attached.as_secs_f64() * 1000.0,
            match probe.build() {
                Build::Plain => "reading kernel memory by a helper",
                Build::Typed => "reading kernel memory by typed loads",
            }
        );
    }
    if !probe.tells_majors() {
        say!("faultline: this kernel refuses the perf event for major faults: `major` is null");
    }
    let mut session = Session::new(options, probe, &mut writer)?;
    let status = session.run(&mut watch)?;
    if let (Some(file), Some(path)) = (flamegraph, &options.flamegraph) {
        let Session { table, names, .. } = &mut session;
        flame::draw(file, path, table, names)?;
        say!("faultline: flame graph written to `{}`", path.display());
    }
    let (counters, full) = (session.counters, session.full_total);
    if options.verbose || counters.lost_any() {
        say!("faultline: {}", session.tally());
    }
    let lost = options.strict && (counters.lost_any() || full != 0);
    Ok(ExitCode::from(status.unwrap_or(0).max(u8::from(lost))))
}

/// What the kernel programs are to do.
pub fn plan(options: &Options) -> Plan {
    Plan {
        filter: Filter { command: !options.command.is_empty(), ..options.filter.clone() },
        by: options.by,
        classes: options.vma,
        user: options.user,
        kernel: options.kernel,
        frames: options.max_stack_depth,
        keys: options.max_groups,
        stacks: options.max_stacks,
        events: options.events,
        attach: options.attach,
        btf: options.btf.clone(),
        verbose: options.verbose,
    }
}

/// One run between attaching and the last record.
struct Session<'run> {
    options: &'run Options,
    probe: Probe,
    ring: Ring<'static>,
    samples: Rc<RefCell<Vec<Sample>>>,
    writer: &'run mut Writer,
    table: Table,
    names: Names,
    host: String,
    kernel: String,
    boot_id: Option<String>,
    since_ns: u64,
    /// When the interval began.
    from_ns: u64,
    /// The counters at the last look, and when the interval began.
    counters: Counters,
    counters_before: Counters,
    matched_total: u64,
    full_total: u64,
    /// When the next table is due; None: at the end.
    next: Option<Instant>,
}

impl<'run> Session<'run> {
    fn new(options: &'run Options, probe: Probe, writer: &'run mut Writer) -> Result<Self> {
        let samples = Rc::new(RefCell::new(Vec::with_capacity(BATCH)));
        let into = samples.clone();
        let ring = probe.ring(move |bytes| into.borrow_mut().extend(Sample::from_bytes(bytes)))?;
        let now = boottime_ns()?;
        let mut session = Self {
            options,
            probe,
            ring,
            samples,
            writer,
            table: Table::default(),
            names: Names::new(),
            host: host::name(),
            kernel: host::kernel().0,
            boot_id: host::boot_id(),
            since_ns: now,
            from_ns: now,
            counters: Counters::default(),
            counters_before: Counters::default(),
            matched_total: 0,
            full_total: 0,
            next: None,
        };
        session.next = session.interval().and_then(|interval| Instant::now().checked_add(interval));
        Ok(session)
    }

    /// Between two tables; None: only one, at the end.
    fn interval(&self) -> Option<Duration> {
        let is_watching = self.options.command.is_empty() && self.options.events.is_none();
        self.options.interval.or_else(|| is_watching.then_some(Duration::from_secs(1)))
    }

    fn run(&mut self, watch: &mut Watch) -> Result<Option<u8>> {
        let command = &self.options.command;
        let mut running = if command.is_empty() { None } else { Some(Running::start(command)?) };
        let mut told = false;
        self.await_tick(watch);
        loop {
            match watch.next(self.ring.as_fd())? {
                Event::Samples => watch.took(self.take_samples()?, BATCH),
                Event::Child => {
                    if let Some(status) = running.as_mut().map(Running::ended).transpose()?.flatten() {
                        self.finish()?;
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
                    _ => return self.leave(running.as_ref()),
                },
                Event::TimeUp => return self.leave(running.as_ref()),
                Event::Tick => {
                    self.drain()?;
                    if self.next.is_some_and(|next| next <= Instant::now()) {
                        self.tell(false)?;
                        self.next = self.interval().and_then(|interval| Instant::now().checked_add(interval));
                    }
                    self.await_tick(watch);
                }
                Event::Hangup => {}
            }
        }
    }

    fn await_tick(&self, watch: &mut Watch) {
        let drain = Instant::now() + DRAIN_INTERVAL;
        watch.tick_at(self.next.map_or(drain, |next| next.min(drain)));
    }

    fn leave(&mut self, running: Option<&Running>) -> Result<Option<u8>> {
        self.finish()?;
        if let Some(running) = running {
            say!("faultline: `{}` (PID {}) goes on unwatched", running.name(), running.pid());
        }
        Ok(None)
    }

    /// Nothing is counted after this: the last table has it all.
    fn finish(&mut self) -> Result<()> {
        self.probe.detach();
        self.drain()?;
        self.tell(true)
    }

    /// Takes one batch of samples, and writes the events among them; returns how many there were.
    fn take_samples(&mut self) -> Result<usize> {
        let taken = self.ring.take(BATCH)?;
        let samples: Vec<Sample> = self.samples.borrow_mut().drain(..).collect();
        for sample in &samples {
            if let Sample::Mapping(mapping) = sample {
                self.names.learn_mapping(mapping)?;
            }
        }
        let by = self.options.by;
        for sample in &samples {
            let Sample::Fault(fault) = sample else { continue };
            if by == By::Stack {
                self.names.ask(&self.probe, std::iter::empty(), std::iter::once(fault.key.place))?;
            }
            let record = Fault::new(fault, by, self.probe.hook(), &self.host, &mut self.names)?;
            self.writer.write(&record)?;
        }
        self.writer.flush()?;
        Ok(taken)
    }

    /// Moves what was counted from the kernel's table to ours, and learns what it stands for.
    fn drain(&mut self) -> Result<()> {
        let counts = self.probe.drain()?;
        for _ in 0..LAST_BATCHES {
            if self.take_samples()? < BATCH {
                break;
            }
        }
        let pids: HashSet<u32> = counts.faults.iter().map(|(key, _)| key.tgid).collect();
        let hashes: HashSet<u64> = match self.options.by {
            By::Stack => counts.faults.iter().map(|(key, _)| key.place).collect(),
            _ => HashSet::new(),
        };
        self.names.ask(&self.probe, pids.into_iter(), hashes.into_iter())?;
        self.table.add(&counts, is_alive, |pid| self.names.comm(pid));
        self.counters = self.probe.counters()?;
        Ok(())
    }

    /// Writes the table of the interval that ends now.
    fn tell(&mut self, last: bool) -> Result<()> {
        let summary = self.summary(last)?;
        self.matched_total += summary.faults.matched;
        self.full_total += summary.losses.values().sum::<u64>();
        self.writer.write(&summary)?;
        self.writer.flush()?;
        self.table.begin();
        self.counters_before = self.counters;
        Ok(())
    }

    fn summary(&mut self, last: bool) -> Result<Summary> {
        let now = boottime_ns()?;
        let (by, hook, tells_majors) = (self.options.by, self.probe.hook(), self.probe.tells_majors());
        let sorted = self.table.sorted(last);
        let default_rows = if self.options.format == Format::Text { TEXT_ROWS } else { usize::MAX };
        let rows = self.options.top.unwrap_or(default_rows).min(sorted.len());
        let mut omitted = Omitted { groups: sorted.len() - rows, ..Omitted::default() };
        for (_, row) in &sorted[rows..] {
            omitted.count += row.count;
            omitted.total += row.total;
        }
        let names = &mut self.names;
        let groups: Vec<Group> =
            sorted[..rows].iter().map(|(cell, row)| Group::new(cell, row, by, hook, tells_majors, names)).collect();
        let table_full = self.counters.table_full - self.counters_before.table_full;
        let losses = BTreeMap::from([("group_table_full", table_full + self.table.full())]);
        let since = |now: u64, before: u64| now - before;
        let mut sample_losses: BTreeMap<&'static str, u64> = self
            .counters
            .sample_losses()
            .iter()
            .zip(self.counters_before.sample_losses())
            .map(|((reason, now), (_, before))| (*reason, since(*now, before)))
            .collect();
        *sample_losses.entry("major_unplaced").or_default() += self.table.major_full();
        if last {
            *sample_losses.entry("stack_table_full").or_default() += self.names.stacks_lost();
        }
        let summary = Summary {
            kind: "pagefault_summary",
            schema: SCHEMA,
            timestamp: Timestamp::from_boottime(now)?,
            host: self.host.clone(),
            since: Timestamp::from_boottime(self.since_ns)?,
            interval_seconds: now.saturating_sub(self.from_ns) as f64 / 1e9,
            kernel: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
            last,
            attach: hook_name(hook),
            by: by_name(by),
            groups,
            omitted,
            faults: Faults {
                matched: self.table.count() + losses.values().sum::<u64>(),
                filtered: self.counters.filtered - self.counters_before.filtered,
                major: tells_majors.then_some(self.counters.major - self.counters_before.major),
            },
            losses,
            sample_losses,
        };
        self.from_ns = now;
        Ok(summary)
    }

    /// The counters in one line.
    fn tally(&self) -> String {
        let losses: Vec<String> =
            self.counters.sample_losses().iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        format!(
            "{} page faults matched, {} of them in no group, {} filtered out in the kernel; {} records; lost: {}",
            self.matched_total,
            self.full_total,
            self.counters.filtered,
            self.counters.events,
            losses.join(", ")
        )
    }
}

/// Whose faults are counted, for the line on standard error.
fn subject(options: &Options) -> String {
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
    if parts.is_empty() { "all processes".to_owned() } else { parts.join(" in ") }
}
