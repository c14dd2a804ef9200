//! `faultline agent`: always on. Counts in the kernel, tells every interval, and is silent until then.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sd_notify::NotifyState;

use crate::crash::{self, Collector, Crash, Decoder};
use crate::host;
use crate::output::{Health, Metrics, PagefaultMetrics, SignalMetrics, Writer, boottime_ns, is_closed_pipe, serve};
use crate::output::{Record, Timestamp};
use crate::pagefault;
use crate::probe::{self, crash::Probe};
use crate::session::BATCH;
use crate::signal::{self, PairLedger, PairLook};
use crate::watch::{Event, Watch};

/// What a user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to watch, the budget of samples, and where records go.
    pub crash: crash::Options,
    /// Between two summaries.
    pub interval: Duration,
    /// Where `/metrics` is served; None: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// How many executables get a label of their own.
    pub max_executables: usize,
    /// Count who sends which signal to whom, too; None: not asked for.
    pub signals: Option<signal::Options>,
    /// Count page faults, too; None: not asked for.
    pub pagefaults: Option<pagefault::Options>,
}

/// What counts signals beside the crashes.
struct Signals {
    probe: probe::signal::Probe,
    ledger: PairLedger,
    metrics: SignalMetrics,
    seen: Option<PairLook>,
}

impl Signals {
    fn look(&mut self) -> Result<PairLook> {
        let look = PairLook::take(&self.probe, self.seen.as_ref())?;
        Ok(self.seen.insert(look).clone())
    }

    fn start(options: &signal::Options, metrics: &Metrics, max_names: usize) -> Result<Self> {
        let probe = probe::signal::Probe::start(&signal::plan(options))?;
        let registry = metrics.registry();
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = SignalMetrics::new(&mut registry, max_names);
        Ok(Self { probe, ledger: PairLedger::new(options.processes)?, metrics, seen: None })
    }
}

/// What counts page faults beside the crashes.
struct Pagefaults {
    collector: pagefault::Collector,
    metrics: PagefaultMetrics,
}

impl Pagefaults {
    fn start(options: &pagefault::Options, metrics: &Metrics, max_names: usize) -> Result<Self> {
        let collector = pagefault::Collector::start(options)?;
        let registry = metrics.registry();
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { collector, metrics: PagefaultMetrics::new(&mut registry, max_names) })
    }
}

/// Counts until it is told to stop.
///
/// # Errors
/// What can't be watched, listened on or opened: one line with the cure.
pub fn run(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    options.crash.filter.check()?;
    options.crash.filter.check_cgroup()?;
    let writer = Writer::open_whole(&options.crash.target, options.crash.format)?;
    let plan = crash::plan(&options.crash);
    // Before there is another thread: it must inherit the blocked signals.
    let mut watch = Watch::with_hangup(options.crash.duration)?;
    let probe = Probe::start(&plan)?;
    let attached = started.elapsed();
    let collector = Collector::new(&probe, Decoder::new(options.crash.clone()), &options.crash)?;
    let since = Timestamp::from_boottime(boottime_ns()?)?;
    let metrics = Metrics::new(since.unix_ns() as f64 / 1e9, options.max_executables);
    let heartbeat = sd_notify::watchdog_enabled().map_or(options.interval, |watchdog| watchdog / 3);
    let health = Health::new(options.interval * 3 + Duration::from_secs(5));
    let signals = options.signals.as_ref();
    let signals = signals.map(|asked| Signals::start(asked, &metrics, options.max_executables)).transpose()?;
    let pagefaults = options.pagefaults.as_ref();
    let pagefaults = pagefaults.map(|asked| Pagefaults::start(asked, &metrics, options.max_executables)).transpose()?;
    say!(
        "faultline: watching {} through {}, a summary every {} s",
        crash::subject(&options.crash),
        probe.attached().join(" and "),
        options.interval.as_secs_f64()
    );
    if let Some(signals) = &signals {
        say!("faultline: counting signals through {}", signals.probe.attached().join(" and "));
    }
    if let Some(unseen) = host::Privileges::read().and_then(host::Privileges::unseen) {
        say!("faultline: {unseen}");
    }
    if let Some(address) = options.metrics_listen {
        let bound = serve(address, metrics.registry(), health.clone())?;
        say!("faultline: metrics on http://{bound}/metrics");
    }
    host::release_memory();
    if options.crash.verbose {
        let memory = host::resident_bytes().map_or(0, |bytes| bytes / 1024);
        say!("faultline: attached after {:.1} ms, resident memory {memory} KiB", attached.as_secs_f64() * 1000.0);
    }
    let mut agent = Agent {
        collector,
        signals,
        pagefaults,
        writer,
        metrics,
        health,
        interval: options.interval,
        heartbeat: heartbeat.min(options.interval).max(Duration::from_millis(50)),
        next: Instant::now() + options.interval,
        summaries: 0,
        is_failing: false,
    };
    agent.measure()?;
    watch.tick_at(agent.next_tick());
    notify(&[NotifyState::Ready]);
    let lost = agent.run(&mut watch)?;
    Ok(ExitCode::from(u8::from(options.crash.strict && lost)))
}

/// Tells the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, and with it there is nothing that we could do about it.
    let _ = sd_notify::notify(state);
}

struct Agent<'run> {
    collector: Collector<'run>,
    signals: Option<Signals>,
    pagefaults: Option<Pagefaults>,
    writer: Writer,
    metrics: Metrics,
    health: Health,
    interval: Duration,
    /// The longest silence that a watchdog bears.
    heartbeat: Duration,
    /// When the next summary is due: on a grid, so that a late one makes none later.
    next: Instant,
    summaries: u64,
    /// The last record could not be written; said once.
    is_failing: bool,
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
                Event::Hangup => match self.writer.reopen() {
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
            if !self.write(&record)? {
                self.collector.lost("write_failed", 1);
            }
        }
        Ok(())
    }

    /// Writes a record whole. False: it could not be, which is said when it begins and when it ends.
    fn write(&mut self, record: &impl Record) -> Result<bool> {
        match self.writer.write_whole(record) {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    say!("faultline: records are written again");
                }
                Ok(true)
            }
            Err(error) if is_closed_pipe(&error) => Err(error),
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    say!("faultline: {error:#}: counting goes on, and the next summary that can be written has it all");
                }
                Ok(false)
            }
        }
    }

    fn summarize(&mut self, last: bool) -> Result<()> {
        let (look, summary) = self.collector.summary(last)?;
        if self.write(&summary)? {
            self.collector.commit(&look);
            self.summaries += 1;
        } else if last {
            bail!("failed to write the last summary: {} signals are told nowhere", summary.deliveries.matched);
        }
        self.summarize_signals(last)?;
        self.summarize_pagefaults(last)?;
        self.measure()
    }

    fn summarize_pagefaults(&mut self, last: bool) -> Result<()> {
        let Some(mut pagefaults) = self.pagefaults.take() else { return Ok(()) };
        let Pagefaults { collector, metrics } = &mut pagefaults;
        if last {
            collector.detach();
        }
        let [faults, majors] = collector.drain(|_| Ok(()))?;
        metrics.add(&faults, &majors);
        let summary = collector.summary(last)?;
        if self.write(&summary)? {
            collector.commit(&summary);
        } else if last {
            bail!("failed to write the last summary of page faults: {} are told nowhere", summary.faults.matched);
        }
        self.metrics.update_dropped("page_fault", "group_table_full", collector.table_full());
        self.pagefaults = Some(pagefaults);
        Ok(())
    }

    fn summarize_signals(&mut self, last: bool) -> Result<()> {
        let Some(mut signals) = self.signals.take() else { return Ok(()) };
        let look = signals.look()?;
        let summary = signals.ledger.summarize(&look, last)?;
        let written = self.write(&summary)?;
        let signals = self.signals.insert(signals);
        if written {
            signals.ledger.commit(&look);
        } else if last {
            bail!("failed to write the last summary of signals: {} are told nowhere", summary.deliveries.matched);
        }
        Ok(())
    }

    /// Brings the metrics up to date.
    fn measure(&mut self) -> Result<()> {
        if let Some(signals) = &mut self.signals {
            let look = signals.look()?;
            signals.metrics.update(look.totals());
            self.metrics.update_dropped("pair", "pair_table_full", look.counters().pair_table_full);
        }
        let mut totals = self.collector.totals()?;
        totals.summaries = self.summaries;
        self.metrics.update(&totals);
        Ok(())
    }
}
