//! `faultline agent`: always on. Counts in the kernel, tells every interval, and is silent until then.

mod beside;
mod executable_memory;
mod output;
mod pagefaults;
mod signals;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sd_notify::NotifyState;

use crate::crash::{self, Collector, Crash, Decoder};
use crate::output::{Health, Metrics, Timestamp, boottime_ns, serve};
use crate::probe::{self, crash::Probe};
use crate::session::{self, Announcement, End, Reader};
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
    let (start, writer) = session::open_daemon(&options.crash.common)?;
    let probe = Probe::start(&crash::plan(&options.crash))?;
    let session = start.attached()?;
    let collector = Collector::new(&probe, Decoder::new(options.crash.clone()), &options.crash)?;
    let since = Timestamp::from_boottime(boottime_ns()?)?;
    let metrics = Metrics::new(since.unix_ns() as f64 / 1e9, options.max_executables);
    let heartbeat = sd_notify::watchdog_enabled().map_or(options.interval, |watchdog| watchdog / 3);
    let health = Health::new(options.interval * 3 + Duration::from_secs(5));
    let beside = options.beside(&metrics)?;
    let mut notes: Vec<String> = beside.iter().map(|counted| format!("counting {}", counted.subject())).collect();
    if let Some(address) = options.metrics_listen {
        let url = serve(address, options.web_config.as_deref(), metrics.registry(), health.clone())?;
        notes.push(format!("metrics on {url}"));
    }
    let words = Announcement::new(&crash::subject(&options.crash), probe.attached(), probe.build());
    let watching = format!("{}, a summary every {} s", words.watching, options.interval.as_secs_f64());
    session.announce(&Announcement { watching, has_names: true, notes, ..words });
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
    notify(&[NotifyState::Ready]);
    session.run(&mut agent)
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

impl Reader for Agent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.collector.as_fd()
    }

    fn drain(&mut self) -> Result<usize> {
        let mut records = Vec::new();
        let taken = self.collector.take(|record| {
            records.push(record);
            Ok(())
        })?;
        self.write_records(records)?;
        Ok(taken)
    }

    /// For the next summary, or to show that we live.
    fn next_tick(&self, _last: Instant) -> Option<Instant> {
        Some(self.next.min(Instant::now() + self.heartbeat))
    }

    fn tick(&mut self) -> Result<()> {
        notify(&[NotifyState::Watchdog]);
        self.health.mark();
        if self.next <= Instant::now() {
            self.drain()?;
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

    fn finish(&mut self) -> Result<End> {
        notify(&[NotifyState::Stopping]);
        let mut records = Vec::new();
        self.collector.take_last(|record| {
            records.push(record);
            Ok(())
        })?;
        self.write_records(records)?;
        self.summarize(true)?;
        let lost = self.collector.lost_any()?;
        Ok(End { tally: None, lost, incomplete: lost })
    }
}

impl Agent<'_> {
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
