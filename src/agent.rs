//! `faultline agent`: always on. Counts in the kernel, tells every interval, and is silent until then.

mod beside;
mod executable_memory;
mod output;
mod pagefaults;
mod signals;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sd_notify::NotifyState;

use crate::crash::{self, Collector, Crash, Decoder};
use crate::host;
use crate::output::{Health, Metrics, Timestamp, Writer, boottime_ns, serve};
use crate::probe::{self, crash::Probe};
use crate::session::BATCH;
use crate::watch::{Event, Watch};
use crate::{pagefault, signal};
use beside::Beside;
use executable_memory::ExecMemory;
use output::Output;
use pagefaults::Pagefaults;
use signals::Signals;

/// What a user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to watch, the budget of samples, and where records go.
    pub crash: crash::Options,
    /// Between two summaries.
    pub interval: Duration,
    /// Where `/metrics` is served; None: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// What `/metrics` asks of whoever scrapes it: TLS and passwords. `None` means nothing.
    pub web_config: Option<PathBuf>,
    /// How many executables get a label of their own.
    pub max_executables: usize,
    /// Count who sends which signal to whom, too; None: not asked for.
    pub signals: Option<signal::Options>,
    /// Count page faults, too; None: not asked for.
    pub pagefaults: Option<pagefault::Options>,
    /// Count who makes anonymous memory executable, too; None: not asked for.
    pub exec_memory: Option<probe::memory::Plan>,
}

impl Options {
    /// What is counted beside crashes.
    fn beside(&self, metrics: &Metrics) -> Result<Vec<Box<dyn Beside>>> {
        let mut all: Vec<Box<dyn Beside>> = Vec::new();
        if let Some(asked) = &self.signals {
            all.push(Box::new(Signals::start(asked, metrics, self.max_executables)?));
        }
        if let Some(asked) = &self.pagefaults {
            all.push(Box::new(Pagefaults::start(asked, metrics, self.max_executables)?));
        }
        if let Some(asked) = &self.exec_memory {
            all.push(Box::new(ExecMemory::start(asked, metrics, self.max_executables)?));
        }
        Ok(all)
    }
}

/// Counts until it is told to stop.
///
/// # Errors
/// What can't be watched, listened on or opened: one line with the cure.
pub fn run(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    options.crash.common.check()?;
    let writer = Writer::open_whole(&options.crash.common.target, options.crash.common.format)?;
    let plan = crash::plan(&options.crash);
    // Before there is another thread: it must inherit the blocked signals.
    let mut watch = Watch::with_hangup(options.crash.common.duration)?;
    let probe = Probe::start(&plan)?;
    let attached = started.elapsed();
    let collector = Collector::new(&probe, Decoder::new(options.crash.clone()), &options.crash)?;
    let since = Timestamp::from_boottime(boottime_ns()?)?;
    let metrics = Metrics::new(since.unix_ns() as f64 / 1e9, options.max_executables);
    let heartbeat = sd_notify::watchdog_enabled().map_or(options.interval, |watchdog| watchdog / 3);
    let health = Health::new(options.interval * 3 + Duration::from_secs(5));
    let beside = options.beside(&metrics)?;
    say!(
        "faultline: watching {} through {}, a summary every {} s",
        crash::subject(&options.crash),
        probe.attached().join(" and "),
        options.interval.as_secs_f64()
    );
    for counted in &beside {
        say!("faultline: counting {}", counted.subject());
    }
    if let Some(unseen) = host::Privileges::read().and_then(host::Privileges::unseen) {
        say!("faultline: {unseen}");
    }
    if let Some(address) = options.metrics_listen {
        let url = serve(address, options.web_config.as_deref(), metrics.registry(), health.clone())?;
        say!("faultline: metrics on {url}");
    }
    host::release_memory();
    if options.crash.common.verbose {
        let memory = host::resident_bytes().map_or(0, |bytes| bytes / 1024);
        say!("faultline: attached after {:.1} ms, resident memory {memory} KiB", attached.as_secs_f64() * 1000.0);
    }
    let mut agent = Agent {
        collector,
        beside,
        output: Output::new(writer),
        metrics,
        health,
        interval: options.interval,
        heartbeat: heartbeat.min(options.interval).max(Duration::from_millis(50)),
        next: Instant::now() + options.interval,
        summaries: 0,
    };
    agent.measure()?;
    watch.tick_at(agent.next_tick());
    notify(&[NotifyState::Ready]);
    let lost = agent.run(&mut watch)?;
    Ok(ExitCode::from(u8::from(options.crash.common.strict && lost)))
}

/// Tells the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, and with it there is nothing that we could do about it.
    let _ = sd_notify::notify(state);
}

struct Agent<'run> {
    collector: Collector<'run>,
    beside: Vec<Box<dyn Beside>>,
    output: Output,
    metrics: Metrics,
    health: Health,
    interval: Duration,
    /// The longest silence that a watchdog bears.
    heartbeat: Duration,
    /// When the next summary is due: on a grid, so that a late one makes none later.
    next: Instant,
    summaries: u64,
}

impl Agent<'_> {
    fn run(&mut self, watch: &mut Watch) -> Result<bool> {
        loop {
            match watch.next(self.collector.as_fd())? {
                Event::Samples => watch.took(self.drain()?, BATCH),
                Event::Tick => {
                    notify(&[NotifyState::Watchdog]);
                    self.health.mark();
                    if self.next <= Instant::now() {
                        self.drain()?;
                        self.summarize(false)?;
                        while self.next <= Instant::now() {
                            self.next += self.interval;
                        }
                    }
                    watch.tick_at(self.next_tick());
                }
                Event::Hangup => match self.output.reopen() {
                    Ok(()) => {}
                    Err(error) => say!("faultline: {error:#}; the old file is kept"),
                },
                Event::Child => {}
                Event::Stop { .. } | Event::TimeUp => {
                    notify(&[NotifyState::Stopping]);
                    let mut records = Vec::new();
                    self.collector.take_last(|record| {
                        records.push(record);
                        Ok(())
                    })?;
                    self.write_records(records)?;
                    self.summarize(true)?;
                    return self.collector.lost_any();
                }
            }
        }
    }

    /// When to look at the clock again: for the next summary, or to show that we live.
    fn next_tick(&self) -> Instant {
        self.next.min(Instant::now() + self.heartbeat)
    }

    /// Takes one batch of samples; returns how many.
    fn drain(&mut self) -> Result<usize> {
        let mut records = Vec::new();
        let taken = self.collector.take(|record| {
            records.push(record);
            Ok(())
        })?;
        self.write_records(records)?;
        Ok(taken)
    }

    fn write_records(&mut self, records: Vec<Crash>) -> Result<()> {
        for record in records {
            if !self.output.write(&record)? {
                self.collector.lost("write_failed", 1);
            }
        }
        Ok(())
    }

    fn summarize(&mut self, last: bool) -> Result<()> {
        let (look, summary) = self.collector.summary(last)?;
        if self.output.write(&summary)? {
            self.collector.commit(&look);
            self.summaries += 1;
        } else if last {
            bail!("failed to write the last summary: {} signals are told nowhere", summary.deliveries.matched);
        }
        for counted in &mut self.beside {
            counted.tell(last, &mut self.output, &self.metrics)?;
        }
        self.measure()
    }

    /// Brings the metrics up to date.
    fn measure(&mut self) -> Result<()> {
        let mut totals = self.collector.totals()?;
        totals.summaries = self.summaries;
        self.metrics.update(&totals);
        Ok(())
    }
}
