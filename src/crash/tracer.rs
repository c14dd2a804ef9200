//! The library's interface: a tracer of deaths by signal, on a thread of its own.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::facade::Crash;
use super::{Collector, Decoder, Options};
use crate::error::Error;
use crate::options::Common;
use crate::probe::abi::fl_own_limit;
use crate::probe::crash::{Budget, GroupTable, Probe};
use crate::probe::{Attach, Filter};
use crate::session::BATCH;
use crate::siginfo;
use crate::tracing::{Inside, Losses, Queue, Worker};
use crate::watch::LINGER;

/// How many crashes wait at most for a reader that is slow.
const QUEUE: usize = 1024;
/// How much of a stack is copied, bytes, so that functions without frame pointers have callers: what `faultline crash -t` takes.
const STACK_BYTES: u32 = 65_536;
/// The kernel program keeps no more.
const FRAMES_MAX: u32 = fl_own_limit::FL_LIMIT_FRAMES.0;

/// Reports processes that die by a signal.
///
/// Needs what `faultline crash` needs: CAP_BPF and CAP_PERFMON; with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH as well, the frames
/// have names in the programs of other users, too.
///
/// Without a filter it sees all processes. If several filters are given, all of them must match; of the numbers, names and signals
/// each may be the one.
///
/// ```standalone_crate
/// use std::process::Command;
///
/// use faultline::crash::Tracer;
///
/// fn writes_near_null() {
///     unsafe { *(0x10 as *mut u32) = 1 }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if std::env::args().nth(1).as_deref() == Some("crash") {
/// #     writes_near_null();
/// # }
/// # let program = std::env::current_exe()?;
/// let mut tracing = Tracer::new().frames(8).start()?;
///
/// // A program calls that function.
/// let mut child = Command::new(program).arg("crash").spawn()?;
/// child.wait()?;
///
/// let crash = tracing.by_ref().find(|crash| crash.pid == child.id()).expect("it has crashed");
/// assert_eq!((crash.signal_name.as_str(), crash.fault_address), ("SIGSEGV", Some(0x10)));
/// let function = crash.frames[0].symbol.as_deref().expect("it has a name");
/// assert!(function.contains("writes_near_null"), "{function}");
/// let diagnosis = crash.diagnosis.expect("its cause is known");
/// assert_eq!(diagnosis.kind, "null_dereference", "{}", diagnosis.text);
///
/// let (_left, losses) = tracing.stop()?;
/// for (reason, count) in losses.iter().filter(|(_, count)| *count > 0) {
///     eprintln!("lost: {reason} {count}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tracer {
    filter: Filter,
    signals: Vec<i32>,
    handled: bool,
    frames: u32,
    queue: usize,
    debug_dirs: Vec<PathBuf>,
}

impl Default for Tracer {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            signals: Vec::new(),
            handled: false,
            frames: 16,
            queue: QUEUE,
            debug_dirs: Vec::new(),
        }
    }
}

impl Tracer {
    /// A tracer of all processes, for the signals that dump core.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches only this process, with all its threads. May be called for several.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.filter.pids.push(pid);
        self
    }

    /// Watches only processes whose name (the comm of the main thread) contains `text`. May be called for several.
    #[must_use]
    pub fn process_name(mut self, text: impl Into<String>) -> Self {
        self.filter.process_names.push(text.into());
        self
    }

    /// Watches only tasks in this cgroup or below it: a folder of cgroup v2.
    #[must_use]
    pub fn cgroup(mut self, folder: impl Into<PathBuf>) -> Self {
        self.filter.cgroup = Some(folder.into());
        self
    }

    /// Watches this signal instead of those that dump core. May be called for several.
    #[must_use]
    pub fn signal(mut self, number: i32) -> Self {
        self.signals.push(number);
        self
    }

    /// Reports signals that the process handled or ignored, too. The default is not to.
    #[must_use]
    pub fn handled(mut self, handled: bool) -> Self {
        self.handled = handled;
        self
    }

    /// Finds at most so many frames of each stack, 127 at most; 0 finds none. The default is 16.
    #[must_use]
    pub fn frames(mut self, most: u32) -> Self {
        self.frames = most;
        self
    }

    /// Keeps at most so many crashes for the reader. What comes while they are there is lost and counted as `queue_full`. The default is
    /// 1024.
    #[must_use]
    pub fn queue(mut self, most: usize) -> Self {
        self.queue = most;
        self
    }

    /// Looks for debug files in this folder before the system's own. May be called for several.
    #[must_use]
    pub fn debug_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.debug_dirs.push(folder.into());
        self
    }

    /// Starts. When it returns, nothing is missed any more.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] and [`Error::Unsupported`]; [`Error::NoSuchProcess`], [`Error::IsThread`] and [`Error::Invalid`] if the
    /// filter can't be.
    pub fn start(self) -> Result<Tracing, Error> {
        let options = self.options()?;
        options.common.check()?;
        Worker::start("faultline-crash", self.queue, move |inside, queue| work(&options, inside, queue)).map(Tracing)
    }

    fn options(&self) -> Result<Options, Error> {
        let number = |signal: &i32| {
            let number = siginfo::parse_signal(&signal.to_string());
            number.map_err(|refusal| Error::Invalid(format!("failed to watch a signal: {refusal}")))
        };
        if self.frames > FRAMES_MAX {
            return Err(Error::Invalid(format!("failed to find {} frames: {FRAMES_MAX} at most", self.frames)));
        }
        Ok(Options {
            common: Common { filter: self.filter.clone(), quiet: true, ..Common::default() },
            signals: self.signals.iter().map(number).collect::<Result<_, _>>()?,
            handled: self.handled,
            registers: true,
            stack_trace: self.frames > 0,
            max_stack_depth: self.frames.max(1),
            stack_bytes: STACK_BYTES,
            summary: None,
            table: GroupTable { groups: 1, stacks: 1 },
            samples: Budget { first: None, interval: Duration::ZERO, rate: None },
            attach: Attach::Auto,
            debug_dirs: self.debug_dirs.clone(),
            debuginfod: false,
        })
    }
}

/// Runs on the thread: everything of libbpf stays there.
fn work(options: &Options, inside: &mut Inside<'_>, queue: &mut Queue<Crash>) -> Result<Losses> {
    let probe = Probe::start(&super::plan(options))?;
    let mut collector = Collector::new(&probe, Decoder::new(options.clone()), options)?;
    inside.attached();
    let mut pass = |record| {
        queue.push(Crash::from(record));
        Ok(())
    };
    let mut wait = None;
    while !inside.wait(collector.as_fd(), wait)? {
        wait = match collector.take(&mut pass)? {
            0 => None,
            BATCH => Some(Duration::ZERO),
            // Samples of a storm wake nobody.
            _ => Some(LINGER),
        };
    }
    collector.take_last(&mut pass)?;
    Ok(Losses::new(&collector.counters()?.losses, queue))
}

/// A tracer at work. Dropping it ends the work; [`Tracing::stop`] ends it and returns what is left.
///
/// As an iterator it returns the crashes as they come, and waits for the next one. It ends only if something goes wrong, which
/// [`Tracing::stop`] returns.
#[derive(Debug)]
pub struct Tracing(Worker<Crash>);

impl Tracing {
    /// Waits for the next crash, but no longer than so long. `None` means that there was none.
    pub fn next_within(&mut self, longest: Duration) -> Option<Crash> {
        self.0.next_within(longest)
    }

    /// Ends. Returns the crashes that the iterator hasn't returned, and what was lost since the start.
    ///
    /// # Errors
    /// If something went wrong on the way.
    pub fn stop(self) -> Result<(Vec<Crash>, Losses), Error> {
        self.0.stop()
    }
}

impl Iterator for Tracing {
    type Item = Crash;

    fn next(&mut self) -> Option<Crash> {
        self.0.next()
    }
}
