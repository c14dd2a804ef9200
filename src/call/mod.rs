//! `faultline call`: the last kernel calls of each task, reported when it crashes.
//!
//! The recorder keeps them in the kernel ([`crate::probe::call`]); the crash probe runs beside it. When a crash is reported, the
//! calls of its thread are read, and those of others that have to do with its address or its file.

mod argument;
mod cause;
mod decode;
mod effect;
mod functions;
mod gather;
mod plan;
mod prepare;
mod report;
mod select;
mod shape;
mod structs;
mod subject;
mod symbols;
mod syscalls;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

pub(crate) use report::CallReport;
pub(crate) use select::{Preset, check as check_name};

use crate::crash::{self, Collector, Decoder as CrashDecoder};
use crate::evidence::Evidence;
use crate::output::{Format, Record as _, Writer};
use crate::probe::Attach;
use crate::probe::Ring;
use crate::probe::call::{Recorder, Sample};
use crate::probe::crash::Probe;
use crate::record::crash::Crash;
use crate::session::{self, Announcement, BATCH, End, Reader};
use crate::siginfo;
use gather::Gatherer;
use prepare::Preparation;

/// What shows the calls of a task, besides a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TriggerOn {
    /// The delivery of this signal.
    Signal(u32),
    /// This function returns this.
    Result {
        /// Its name.
        function: String,
        /// An error's number is below 0.
        result: i64,
    },
}

impl TriggerOn {
    /// Is it a result of this function?
    fn is_of(&self, name: &str) -> bool {
        matches!(self, Self::Result { function, .. } if function == name)
    }
}

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Which crashes are reported, and how; which tasks are watched; where records go; the command.
    pub crash: crash::Options,
    /// Names and globs.
    pub functions: Vec<String>,
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
    /// Report calls when they end, at most so many a second of each processor.
    pub live: Option<u32>,
    /// How to attach.
    pub attach: Attach,
}

/// Watches until a signal says stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.functions.is_empty() && options.presets.is_empty() && options.triggers.is_empty() {
        bail!(
            "failed to watch: no function was named: give some, as `faultline call munmap mprotect`, or --preset memory, \
             file or signal"
        );
    }
    let common = &options.crash.common;
    let (start, mut writer) = session::open(common)?;
    let prepared = Preparation::new(options)?;
    let (mut recorder, attached) = Recorder::start(&prepared.plan)?;
    let probe = Probe::start(&crash::plan(&options.crash))?;
    let session = start.attached()?.following(probe.descendants()?);
    let report = prepared.report(&attached);
    if report.function_stages.attached == 0 {
        bail!("{}", report.refusal());
    }
    let ways: Vec<&str> = report.by_way().into_iter().map(|(how, _)| report::words(how)).collect();
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
    let status = session.run(&mut Reading::new(collector, &recorder, gatherer, writer, (report, is_json))?);
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
    ) -> Result<Self> {
        let ring = recorder.ring()?;
        let what = "failed to wait for two rings at once";
        let both = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context(what)?;
        for fd in [collector.as_fd(), ring.as_fd()] {
            both.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0)).context(what)?;
        }
        Ok(Self { collector, ring, gatherer, writer, recorder, report, both, crashes: [0; 3] })
    }

    /// One batch of crashes; returns how many samples there were.
    fn take_crashes(&mut self) -> Result<usize> {
        let gatherer = &mut self.gatherer;
        let recorded = |evidence: &Evidence, disposition| gatherer.recorded(evidence, disposition).map(Some);
        self.collector.take_with(recorded, |record| count_and_write(&record, &mut self.crashes, &mut self.writer))
    }

    /// One batch of calls; returns how many samples there were.
    fn take_calls(&mut self) -> Result<usize> {
        let samples = self.ring.take(BATCH)?;
        for sample in &samples {
            match sample {
                Sample::Trigger(event, task) => self.writer.write(&self.gatherer.trigger(event, task)?)?,
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
        Some(last + LOOK_EVERY)
    }

    fn tick(&mut self) -> Result<()> {
        self.gatherer.complete_since().map(drop)
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

/// `SIGUSR1`, or `mmap=-ENOMEM`.
///
/// # Errors
/// One line that says what is accepted.
pub(crate) fn parse_trigger(text: &str) -> Result<TriggerOn, String> {
    let Some((function, result)) = text.split_once('=') else {
        return siginfo::parse_signal(text)
            .map(TriggerOn::Signal)
            .map_err(|error| format!("{error}, or FUNCTION=RESULT as mmap=-ENOMEM"));
    };
    select::check(function)?;
    if select::is_glob(function) {
        return Err(format!("`{function}` stands for several functions: name one"));
    }
    Ok(TriggerOn::Result { function: function.to_owned(), result: parse_result(result)? })
}

/// `-ENOMEM`, `-12`, `0`, `0x10`
fn parse_result(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no result: give a number, or an error as -ENOMEM");
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).map(u64::cast_signed).map_err(|_| wrong());
    }
    let name = text.strip_prefix('-').ok_or_else(wrong)?.to_ascii_uppercase();
    (1..=MOST_ERRORS)
        .find(|&number| decode::error_name(-number).as_deref() == Some(&name))
        .map(|number| -number)
        .ok_or_else(wrong)
}

/// The kernel's own errors (ERESTARTSYS) end before it.
const MOST_ERRORS: i64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_a_signal_or_a_result() {
        assert_eq!(parse_trigger("usr1"), Ok(TriggerOn::Signal(10)));
        let result = |function: &str, result: i64| Ok(TriggerOn::Result { function: function.to_owned(), result });
        assert_eq!(parse_trigger("mmap=-ENOMEM"), result("mmap", -12));
        assert_eq!(parse_trigger("mmap=-12"), result("mmap", -12));
        assert_eq!(parse_trigger("do_truncate=0"), result("do_truncate", 0));
        assert_eq!(parse_trigger("brk=0xffffffffffffffff"), result("brk", -1));
        assert_eq!(parse_trigger("nanosleep=-ERESTARTSYS"), result("nanosleep", -512));
        for wrong in ["", "nothing", "mmap=", "mmap=ENOMEM", "mmap=-ENOTHING", "=1", "mm*=1", "mmap=-"] {
            assert!(parse_trigger(wrong).is_err(), "{wrong}");
        }
        assert!(parse_trigger("nothing").unwrap_err().contains("FUNCTION=RESULT"));
    }
}
