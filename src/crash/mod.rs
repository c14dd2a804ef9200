//! `faultline crash`: deaths by signal, as they happen.

mod decode;
mod record;
mod signature;
mod text;

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

pub use decode::Decoder;
pub use record::{Crash, Diagnosis, Disposition, EndedBy, Frame, PageFault, Seccomp, Sender, Vma};
pub use signature::{FRAMES as SIGNATURE_FRAMES, Place, signature};

use crate::command::{self, Running};
use crate::host;
use crate::output::{Format, Target, Writer};
use crate::probe::abi::{Names, fl_crash};
use crate::probe::crash::{Attach, Plan, Probe, Ring};
use crate::probe::{Build, Counters, Filter};
use crate::siginfo;
use crate::watch::{Event, Watch};

/// How many samples are decoded before they are written out: bounds the memory between the ring and the output.
const BATCH: usize = 64;

/// Batches that hold more samples than a full ring of 1 MiB, at 3 KiB and more each.
const LAST_BATCHES: usize = 8;

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

/// Watches until it is told to stop, the time is up or the command has ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub fn run(options: Options) -> Result<ExitCode> {
    let started = Instant::now();
    options.filter.check()?;
    options.filter.check_cgroup()?;
    let mut writer = Writer::open(&options.target, options.format)?;
    let plan = plan(&options);
    let probe = Probe::start(&plan)?;
    let attached = started.elapsed();
    let samples = RefCell::new(Vec::with_capacity(BATCH));
    let ring = probe.ring(|bytes| samples.borrow_mut().extend(fl_crash::from_bytes(bytes)))?;
    let mut watch = Watch::new(options.duration)?;
    eprintln!("faultline: watching {} through {}", subject(&options), probe.attached().join(" and "));
    if let Some(unseen) = host::Privileges::read().and_then(host::Privileges::unseen) {
        eprintln!("faultline: {unseen}");
    }
    if options.verbose {
        let memory =
            host::resident_bytes().map_or_else(|| "unknown".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
        eprintln!(
            "faultline: attached after {:.1} ms, {}, resident memory {memory}",
            attached.as_secs_f64() * 1000.0,
            match probe.build() {
                Build::Plain => "reading kernel memory by a helper",
                Build::Typed => "reading kernel memory by typed loads",
            }
        );
    }
    let mut session = Session { decoder: Decoder::new(options.clone()), ring, samples: &samples, writer: &mut writer };
    let end = session.run(&mut watch, &options.command)?;
    let counters = probe.counters()?;
    if options.verbose || end.status.is_none() || counters.lost_any() {
        eprintln!("faultline: {}", tally(&counters));
    }
    let lost = options.strict && counters.lost_any();
    Ok(ExitCode::from(end.status.unwrap_or(0).max(u8::from(lost))))
}

fn plan(options: &Options) -> Plan {
    let signals = if options.signals.is_empty() { siginfo::CORE_SIGNALS.to_vec() } else { options.signals.clone() };
    Plan {
        filter: Filter { command: !options.command.is_empty(), ..options.filter.clone() },
        signals,
        // The signature needs its frames whatever is shown.
        frames: options.max_stack_depth.max(signature::FRAMES as u32),
        show_handled: options.handled,
        attach: options.attach,
        btf: options.btf.clone(),
        verbose: options.verbose,
    }
}

/// One run between attaching and the last record.
struct Session<'run> {
    decoder: Decoder,
    ring: Ring<'run>,
    samples: &'run RefCell<Vec<Box<fl_crash>>>,
    writer: &'run mut Writer,
}

/// How a run ended. `status`: the command's; None: there was none, or it still runs.
struct End {
    status: Option<u8>,
}

impl Session<'_> {
    fn run(&mut self, watch: &mut Watch, command: &[OsString]) -> Result<End> {
        let mut running = if command.is_empty() { None } else { Some(Running::start(command)?) };
        let mut told = false;
        loop {
            match watch.next(self.ring.as_fd())? {
                Event::Samples => match self.drain()? {
                    0 => {}
                    BATCH => watch.look_again(),
                    _ => watch.linger(),
                },
                Event::Child => {
                    if let Some(status) = running.as_mut().map(Running::ended).transpose()?.flatten() {
                        self.drain_last()?;
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
            }
        }
    }

    fn leave(&mut self, running: Option<&Running>) -> Result<End> {
        self.drain_last()?;
        if let Some(running) = running {
            eprintln!("faultline: `{}` (PID {}) goes on unwatched", running.name(), running.pid());
        }
        Ok(End { status: None })
    }

    /// Writes the samples that are there, one batch: who watches must be heard in between.
    fn drain(&mut self) -> Result<usize> {
        let taken = self.ring.take(BATCH)?;
        for sample in self.samples.borrow_mut().drain(..) {
            self.writer.write(&self.decoder.decode(&sample)?)?;
        }
        self.writer.flush()?;
        Ok(taken)
    }

    /// Writes what a full ring may hold, and no more: others may go on crashing.
    fn drain_last(&mut self) -> Result<()> {
        for _ in 0..LAST_BATCHES {
            if self.drain()? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// What is watched, for the line on standard error.
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
        "{} signals matched ({} fatal, {} handled, {} ignored), {} filtered out in the kernel; {} records; lost: {}",
        counters.matched,
        counters.fatal,
        counters.handled,
        counters.ignored,
        counters.filtered,
        counters.records,
        losses.join(", ")
    )
}
