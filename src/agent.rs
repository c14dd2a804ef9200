//! `faultline agent`: runs always, counts in the kernel, and reports every interval.

mod counted;
mod idle;
mod output;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use sd_notify::NotifyState;

use crate::crash::{self, Collector, Decoder};
use crate::ledger::Ledger as _;
use crate::memory::executable_memory::Executables;
use crate::output::{Health, Life, MetricSets, Metrics, Serve, Timestamp, boottime_ns, serve};
use crate::probe::losses::WRITE_FAILED;
use crate::probe::{self, crash::Probe};
use crate::record::crash::Crash;
use crate::session::{self, Announcement, End, Reader};
use crate::{pagefault, signal};
use counted::{Counted as _, IntervalEnd};
use output::Output;

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What to watch, the budget of samples, and where records go.
    pub crash: crash::Options,
    /// Between two summaries.
    pub interval: Duration,
    /// Where `/metrics` is served, and to whom; `None` means nowhere.
    pub serve: Option<Serve>,
    /// How many executables get a label of their own.
    pub max_executables: usize,
    /// Count signals by sender and target, too; `None` means that it was not asked for.
    pub signals: Option<signal::Options>,
    /// Count page faults, too; `None` means that it was not asked for.
    pub pagefaults: Option<pagefault::Options>,
    /// Count the processes that make anonymous memory executable, too; `None` means that it was not asked for.
    pub executable_memory: Option<probe::memory::Plan>,
}

impl Options {
    /// What is counted besides crashes.
    fn beside(&self) -> Result<Vec<Box<dyn IntervalEnd>>> {
        let mut all: Vec<Box<dyn IntervalEnd>> = Vec::new();
        if let Some(asked) = &self.signals {
            let probe = probe::signal::Probe::start(&signal::plan(asked))?;
            all.push(Box::new(signal::Pairs::new(probe, asked.processes)?));
        }
        if let Some(asked) = &self.pagefaults {
            all.push(Box::new(pagefault::Collector::start(asked)?));
        }
        if let Some(asked) = &self.executable_memory {
            all.push(Box::new(Executables::new(probe::memory::Probe::start(asked)?)?));
        }
        Ok(all)
    }

    fn metrics(&self) -> Result<Metrics> {
        let beside = MetricSets {
            signals: self.signals.is_some(),
            pagefaults: self.pagefaults.is_some(),
            executable_memory: self.executable_memory.is_some(),
        };
        let since = Timestamp::from_boottime(boottime_ns()?)?;
        Ok(Metrics::new(since.unix_ns() as f64 / 1e9, self.max_executables, beside))
    }
}

/// Counts until a signal or `--duration` stops it.
///
/// # Errors
/// What can't be watched, listened on or opened: one line with the cure.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (start, writer) = session::open_daemon(&options.crash.common)?;
    let probe = Probe::start(&crash::plan(&options.crash))?;
    let session = start.attached()?;
    let mut collector = Collector::new(&probe, Decoder::new(options.crash.clone()), &options.crash)?;
    collector.keep_files();
    let metrics = options.metrics()?;
    let health = Health::new(options.interval * 3 + Duration::from_secs(5));
    let beside = options.beside()?;
    let mut words = Announcement::new(&crash::subject(&options.crash), probe.attached(), probe.build());
    words.has_names = true;
    words.watching += &format!(", a summary every {} s", options.interval.as_secs_f64());
    words.notes = beside.iter().map(|counted| format!("counting {}", counted.subject())).collect();
    let serving = options.serve.as_ref().map(|asked| serve(asked, metrics.registry(), health.clone())).transpose()?;
    words.notes.extend(serving.iter().map(|serving| format!("metrics on {}", serving.place)));
    let heartbeat = sd_notify::watchdog_enabled().map_or(options.interval, |watchdog| watchdog / 3);
    let mut agent = Agent {
        collector,
        beside,
        output: Output::new(writer, options.interval),
        metrics,
        health,
        server: serving.map(|serving| serving.life),
        is_deaf: false,
        interval: options.interval,
        heartbeat: heartbeat.min(options.interval).max(Duration::from_millis(50)),
        next: Instant::now() + options.interval,
    };
    agent.measure()?;
    session.announce(&words);
    notify(&[NotifyState::Ready]);
    session.run(&mut agent)
}

/// Notifies the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nothing to notify, and an error of it leaves nothing that we could do.
    let _ = sd_notify::notify(state);
}

struct Agent<'run> {
    collector: Collector<'run>,
    beside: Vec<Box<dyn IntervalEnd>>,
    output: Output,
    metrics: Metrics,
    health: Health,
    /// `None` means that there is none.
    server: Option<Life>,
    /// The server answers no more; this is reported once.
    is_deaf: bool,
    interval: Duration,
    /// The longest time between two notifications to the watchdog.
    heartbeat: Duration,
    /// When the next summary is due: on a grid, so that a late one makes none later.
    next: Instant,
}

impl Agent<'_> {
    /// The metrics before anything has come, so that what is counted is there with 0.
    fn measure(&mut self) -> Result<()> {
        let look = self.collector.look(false)?;
        self.collector.measure(&look, &mut self.metrics)
    }

    /// Marks that the loop is alive, and notifies the watchdog unless the server doesn't answer: then only a new start helps.
    fn show_life(&mut self) {
        self.health.mark();
        let is_deaf = self.server.as_ref().is_some_and(|server| !server.ask());
        if !is_deaf {
            notify(&[NotifyState::Watchdog]);
        }
        if is_deaf && !self.is_deaf {
            say!("faultline: the metrics server doesn't answer: the watchdog is not notified until it does");
        }
        self.is_deaf = is_deaf;
    }

    fn write(&mut self, records: Vec<Crash>) -> Result<()> {
        for record in records {
            if !self.output.write(&record)? {
                self.collector.lost(WRITE_FAILED, 1);
            }
        }
        Ok(())
    }

    fn summarize(&mut self, last: bool) -> Result<()> {
        self.collector.end(last, &mut self.output, &mut self.metrics)?;
        for _ in 0..self.output.take_told() {
            self.metrics.add_summary();
        }
        for counted in &mut self.beside {
            counted.end(last, &mut self.output, &mut self.metrics)?;
        }
        Ok(())
    }
}

impl Reader for Agent<'_> {
    /// It is always on.
    const ENDS_WITH_PIDS: bool = false;

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.collector.as_fd()
    }

    fn drain(&mut self) -> Result<usize> {
        let mut records = Vec::new();
        let taken = self.collector.take(|record| {
            records.push(record);
            Ok(())
        })?;
        self.write(records)?;
        Ok(taken)
    }

    /// For the next summary, or to show that we live.
    fn next_tick(&self, _last: Instant) -> Option<Instant> {
        let next = self.next.min(Instant::now() + self.heartbeat);
        Some(self.collector.next_relief().map_or(next, |relief| relief.min(next)))
    }

    fn tick(&mut self) -> Result<()> {
        self.show_life();
        self.collector.relieve()?;
        if self.next <= Instant::now() {
            self.drain()?;
            let mut records = Vec::new();
            self.collector.settle(self.interval, |record| {
                records.push(record);
                Ok(())
            })?;
            self.write(records)?;
            self.summarize(false)?;
            while self.next <= Instant::now() {
                self.next += self.interval;
            }
        }
        Ok(())
    }

    fn hang_up(&mut self) {
        if let Err(error) = self.output.reopen() {
            say!("faultline: {error:#}; the old file is kept");
        }
    }

    fn hurry(&mut self) {
        self.collector.hurry();
    }

    fn finish(&mut self) -> Result<End> {
        notify(&[NotifyState::Stopping]);
        let mut records = Vec::new();
        self.collector.take_last(|record| {
            records.push(record);
            Ok(())
        })?;
        self.write(records)?;
        self.summarize(true)?;
        self.output.end()?;
        let lost = self.collector.lost_any()?;
        Ok(End { tally: None, lost, incomplete: lost })
    }
}
