//! `faultline call`: the last kernel calls of each task, reported when it crashes.
//!
//! The recorder keeps them in the kernel ([`crate::probe::call`]); the crash probe runs beside it. When a crash is reported, the
//! calls of its thread are read, and those of others that have to do with its address or its file.

mod argument;
mod callbacks;
mod callers;
mod cause;
mod decode;
mod effect;
mod events;
mod follow;
mod functions;
mod gather;
mod nesting;
mod places;
mod plan;
mod prepare;
mod programs;
mod reach;
mod report;
mod select;
mod shape;
mod stages;
mod structs;
mod subject;
mod symbols;
mod syscalls;
mod trigger;
mod triggers;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

pub(crate) use reach::reach;
pub(crate) use report::CallReport;
pub(crate) use select::{Preset, check as check_name};
pub(crate) use trigger::{Stitch, TriggerOn};

use crate::crash::{self, Collector, Decoder as CrashDecoder};
use crate::evidence::Evidence;
use crate::output::{Format, Record as _, Writer};
use crate::probe::Attach;
use crate::probe::Ring;
use crate::probe::call::{Recorder, Sample};
use crate::probe::crash::Probe;
use crate::record::crash::Crash;
use crate::session::{self, Announcement, BATCH, End, Reader};
use follow::Follower;
use gather::Gatherer;
use prepare::Preparation;

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Which crashes are reported, and how; which tasks are watched; where records go; the command.
    pub crash: crash::Options,
    /// Names and globs.
    pub functions: Vec<String>,
    /// If there are any, only the programs of these processes are meant by `bpf:NAME`.
    pub bpf_of: Vec<u32>,
    /// Attach to the programs that are loaded later, too.
    pub follow_bpf: bool,
    /// Record the kernel's functions that call the callbacks, too.
    pub callers: bool,
    /// Ready choices.
    pub presets: Vec<Preset>,
    /// Calls kept of each task: a power of two, 4 to 64.
    pub calls: u32,
    /// Tasks kept.
    pub tasks: u32,
    /// Keep the kernel's stack of each call.
    pub kernel_stacks: bool,
    /// What else shows calls.
    pub triggers: Vec<TriggerOn>,
    /// Which calls a trigger shows.
    pub stitch: Stitch,
    /// Report calls when they end, at most so many a second of each processor.
    pub live: Option<u32>,
    /// How to attach.
    pub attach: Attach,
}

impl Options {
    /// The names and globs that were asked for: a process of which no program is named stands for all of its programs.
    fn names(&self) -> Vec<String> {
        let mut names = self.functions.clone();
        if (self.follow_bpf || !self.bpf_of.is_empty()) && !names.iter().any(|name| programs::is_program(name)) {
            names.push(programs::ALL.to_owned());
        }
        names
    }
}

/// Why nothing can be watched.
const NO_FUNCTION: &str = "failed to watch: no function was named: give some, as `faultline call munmap mprotect`, or --preset memory, \
                           file or signal";

/// Watches until a signal says stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.names().is_empty() && options.presets.is_empty() && options.triggers.is_empty() {
        bail!(NO_FUNCTION);
    }
    let common = &options.crash.common;
    let (start, mut writer) = session::open(common)?;
    let prepared = Preparation::new(options)?;
    let (mut recorder, attached) = Recorder::start(&prepared.plan)?;
    let probe = Probe::start(&crash::plan(&options.crash))?;
    let session = start.attached()?.following(probe.descendants()?);
    let report = prepared.report(&attached);
    if report.function_stages.attached == 0 && !options.follow_bpf {
        bail!("{}", report.refusal());
    }
    let mut ways: Vec<&str> = report.by_way().into_iter().map(|(how, _)| report::words(how)).collect();
    if options.follow_bpf {
        ways.push("BPF programs as they are loaded");
    }
    session.announce(&Announcement {
        watching: format!("{}, and kernel calls through {}", crash::subject(&options.crash), ways.join(", ")),
        has_names: true,
        notes: report.text().lines().map(str::to_owned).collect(),
        build: recorder.build(),
    });
    let is_json = common.format == Format::Json;
    if is_json {
        writer.write(&report)?;
        writer.flush()?;
    }
    let collector = Collector::new(&probe, CrashDecoder::new(options.crash.clone()), &options.crash)?;
    let gatherer = Gatherer::new(&recorder, prepared.decoder(&attached), options.kernel_stacks);
    let follower = options.follow_bpf.then(|| Follower::new(options, &prepared.planned));
    let reading = Reading::new(collector, &recorder, gatherer, writer, (report, is_json), options)?;
    let status = session.run(&mut Reading { follower, ..reading });
    recorder.detach(|left, all| {
        if !common.quiet {
            say!("faultline: waiting for the kernel to detach from its functions: {left} of {all} hooks are left");
        }
    });
    status
}

/// How often the calls that were not recorded are counted: one of a second ago makes no later explanation doubtful.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a run reads and writes.
struct Reading<'run> {
    collector: Collector<'run>,
    ring: Ring<Sample>,
    gatherer: Gatherer<'run>,
    writer: Writer,
    recorder: &'run Recorder,
    /// The report, and whether it is a record.
    report: (CallReport, bool),
    stitch: &'run Stitch,
    quiet: bool,
    follower: Option<Follower<'run>>,
    /// When the calls that were not recorded were last counted.
    counted: Instant,
    /// Readable when one of the two rings is.
    both: Epoll,
    /// The crashes with a record, those of them with calls, and those of these that a call explains.
    crashes: [u64; 3],
}

impl<'run> Reading<'run> {
    fn new(
        collector: Collector<'run>,
        recorder: &'run Recorder,
        gatherer: Gatherer<'run>,
        writer: Writer,
        report: (CallReport, bool),
        options: &'run Options,
    ) -> Result<Self> {
        let ring = recorder.ring()?;
        let what = "failed to wait for two rings at once";
        let both = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context(what)?;
        for fd in [collector.as_fd(), ring.as_fd()] {
            both.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0)).context(what)?;
        }
        Ok(Self {
            collector,
            ring,
            gatherer,
            writer,
            recorder,
            report,
            stitch: &options.stitch,
            quiet: options.crash.common.quiet,
            follower: None,
            counted: Instant::now(),
            both,
            crashes: [0; 3],
        })
    }

    /// One batch of crashes; returns how many samples there were.
    fn take_crashes(&mut self) -> Result<usize> {
        let gatherer = &mut self.gatherer;
        let recorded = |evidence: &Evidence, disposition| gatherer.recorded(evidence, disposition).map(Some);
        self.collector.take_with(recorded, |record| count_and_write(&record, &mut self.crashes, &mut self.writer))
    }

    /// Attaches to the programs that have come.
    fn follow(&mut self) -> Result<()> {
        let Some(follower) = &mut self.follower else { return Ok(()) };
        let report = &mut self.report.0;
        let (planned, callers) = follower.look(&mut report.triggers)?;
        if planned.is_empty() {
            return Ok(());
        }
        let functions = planned.iter().map(|planned| prepare::function(planned, &report.triggers));
        let attached = self.recorder.add(&functions.collect::<Result<Vec<_>>>()?)?;
        self.gatherer.add(&planned, &attached);
        let words = report.add(&planned, &attached, callers);
        if !self.quiet {
            say!("faultline: {words}");
        }
        Ok(())
    }

    /// One batch of calls; returns how many samples there were.
    fn take_calls(&mut self) -> Result<usize> {
        let samples = self.ring.take(BATCH)?;
        for sample in &samples {
            match sample {
                Sample::Trigger(event, task) => {
                    triggers::count(&mut self.report.0.triggers, event, self.gatherer.function(event));
                    self.writer.write(&self.gatherer.trigger(event, task, self.stitch)?)?
                }
                Sample::Live(event, call) => self.writer.write(&self.gatherer.live(event, call)?)?,
            }
        }
        Ok(samples.len())
    }
}

impl Reader for Reading<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.0.as_fd()
    }

    fn drain(&mut self) -> Result<usize> {
        let taken = self.take_crashes()?.max(self.take_calls()?);
        self.writer.flush()?;
        Ok(taken)
    }

    fn next_tick(&self, last: Instant) -> Option<Instant> {
        Some(last + if self.follower.is_some() { follow::EVERY } else { LOOK_EVERY })
    }

    fn tick(&mut self) -> Result<()> {
        self.follow()?;
        if self.counted.elapsed() >= LOOK_EVERY || self.follower.is_none() {
            self.counted = Instant::now();
            self.gatherer.complete_since()?;
        }
        Ok(())
    }

    fn hurry(&mut self) {
        self.collector.hurry();
    }

    /// As many samples as full rings may hold, and no more: others may go on crashing and calling.
    fn finish(&mut self) -> Result<End> {
        let gatherer = &mut self.gatherer;
        let recorded = |evidence: &Evidence, disposition| gatherer.recorded(evidence, disposition).map(Some);
        let write = |record| count_and_write(&record, &mut self.crashes, &mut self.writer);
        self.collector.take_last_with(recorded, write)?;
        let mark = self.ring.mark();
        while !self.ring.is_past(mark) && self.take_calls()? != 0 {}
        let (mut counters, deaths) = (self.recorder.counters()?, self.collector.counters()?);
        counters.losses.add("ends_missed", self.gatherer.ends_missed());
        self.writer.flush()?;
        self.writer.count(|reason, records| counters.losses.add(reason, records));
        let (report, is_json) = &self.report;
        let tasks = self.recorder.tasks()?.len() as u64;
        if *is_json {
            self.writer.write(&report.at_end(&counters, &deaths, tasks, self.crashes))?;
        }
        self.writer.end(|reason, records| counters.losses.add(reason, records))?;
        let lost = counters.losses.with_crashes(&deaths.losses);
        let end = report.at_end(&counters, &deaths, tasks, self.crashes);
        for trigger in end.triggers.iter().filter(|_| !self.quiet) {
            say!("faultline: {}", trigger.line());
        }
        Ok(End {
            tally: Some(end.end_line(!crate::say::is_terminal())),
            lost: lost.lost_any() || lost.get("live_budget") != 0,
            incomplete: report.lacks_any() || lost.lost_any() || self.collector.lost_any()?,
        })
    }
}

fn count_and_write(record: &Crash, crashes: &mut [u64; 3], writer: &mut Writer) -> Result<()> {
    let calls = record.calls.as_deref().unwrap_or_default();
    crashes[0] += 1;
    crashes[1] += u64::from(!calls.is_empty());
    crashes[2] += u64::from(calls.iter().any(|call| call.is_cause));
    writer.write(record)
}
