//! The library's interface: a tracer of one process, on a thread of its own.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::collect::{BATCH, Collector};
use super::item::{Item, Limits};
use super::record::Page;
use super::target::{Memory, is_there};
use crate::error::Error;
use crate::probe::memory::{Plan, Probe};
use crate::probe::{Filter, Setup};
use crate::tracing::{Inside, Losses, Queue, Worker};

/// How often memory that can change by itself is read again.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many pages wait at most for a reader that is slow: 256 MiB.
const QUEUE: usize = 65_536;

/// Keeps every page of a process that becomes executable.
///
/// Needs what `faultline memory` needs: CAP_BPF and CAP_PERFMON, and the right to trace the process. It sees all threads of
/// the process, and no other process; other tracers of the same process don't disturb it.
///
/// ```
/// use faultline::memory::{Tracer, Trigger};
///
/// # fn main() -> Result<(), faultline::Error> {
/// // Any process that we may trace: here our own.
/// let tracing = Tracer::new(std::process::id())?.start()?;
///
/// // Something in it makes memory executable: mov eax, 42; ret.
/// # use std::ptr::null_mut;
/// let code = [0xb8, 42, 0, 0, 0, 0xc3];
/// let page = unsafe {
///     let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
///     let page = libc::mmap(null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
///     std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len());
///     libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC);
///     page
/// };
///
/// let (pages, _losses) = tracing.stop()?;
/// let made = pages.iter().find(|found| found.address == page as u64).expect("it was made executable");
/// assert_eq!(made.trigger, Trigger::Mprotect);
/// assert!(made.bytes.starts_with(&code));
/// # Ok(())
/// # }
/// ```
///
/// While it runs, [`Tracing`] is an iterator that waits for the next page, and ends when the process has ended.
#[derive(Clone, Debug)]
pub struct Tracer {
    pid: u32,
    max_bytes: u64,
    interval: Duration,
    queue: usize,
}

impl Tracer {
    /// A tracer of the process with this number.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`]; [`Error::IsThread`]; [`Error::NotPermitted`] if we may not trace it; [`Error::Invalid`] if we are in a pid
    /// namespace of our own, where processes have other numbers.
    pub fn new(pid: u32) -> Result<Self, Error> {
        Filter { pids: vec![pid], ..Filter::default() }.check()?;
        let refusal = |why: &str| format!("failed to trace PID {pid}: {why}");
        if !Filter::default().is_of_host()? {
            let why = "processes are read by the numbers that the host gives them: run in its pid namespace";
            return Err(Error::Invalid(refusal(why)));
        }
        match Memory::open(pid).map_err(|error| (error.kind(), error)) {
            Ok(_) => Ok(Self { pid, max_bytes: 64 << 20, interval: INTERVAL, queue: QUEUE }),
            Err((std::io::ErrorKind::NotFound, _)) => Err(Error::NoSuchProcess { pid }),
            Err((std::io::ErrorKind::PermissionDenied, _)) => {
                let cure = "run as the same user with CAP_SYS_PTRACE, or as root";
                Err(Error::NotPermitted(refusal(&format!("not allowed to read its memory, {cure}"))))
            }
            Err((_, error)) => Err(anyhow::Error::new(error).context(refusal("its memory can't be read")).into()),
        }
    }

    /// Reads at most so much of one mapping at one time. The default is 64 MiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How often memory that can change by itself is read again. The default is 100 ms.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Keeps at most so many pages for the reader. What comes while they are there is lost and counted as `queue_full`. The default is
    /// 65536.
    #[must_use]
    pub fn queue(mut self, most: usize) -> Self {
        self.queue = most;
        self
    }

    /// Starts. When it returns, nothing is missed any more. Memory that is executable already comes first, with the trigger
    /// [`super::Trigger::Attach`].
    ///
    /// # Errors
    /// [`Error::NotPermitted`] and [`Error::Unsupported`], as for `faultline memory`.
    pub fn start(self) -> Result<Tracing, Error> {
        let most = self.queue;
        Worker::start("faultline-memory", most, move |inside, queue| self.work(inside, queue)).map(Tracing)
    }

    /// Runs on the thread: everything of libbpf stays there.
    fn work(self, inside: &mut Inside<'_>, queue: &mut Queue<Page>) -> Result<Losses> {
        let plan = Plan {
            setup: Setup { filter: Filter { pids: vec![self.pid], ..Filter::default() }, ..Setup::default() },
            follow: false,
            show_all: false,
            pages: true,
            headers: false,
            executable_memory: false,
        };
        let pass: &mut dyn FnMut(Item) -> Result<()> = &mut |item| {
            if let Item::Page(page) = item {
                queue.push(*page);
            }
            Ok(())
        };
        let probe = Probe::start(&plan)?;
        let mut collector = Collector::new(&probe, Limits { pages: true, max_bytes: self.max_bytes })?;
        collector.attach(self.pid, pass)?;
        inside.attached();
        let mut tick = Instant::now() + collector.patience(self.interval);
        loop {
            let now = Instant::now();
            if now >= tick {
                collector.tick(pass)?;
                tick = Instant::now() + collector.patience(self.interval);
                continue;
            }
            let is_stopped = inside.wait(collector.as_fd(), Some(tick - now))?;
            while collector.take(pass)? == BATCH {}
            if is_stopped || collector.have_ended(&[self.pid]) || !is_there(self.pid) {
                collector.finish(pass)?;
                break;
            }
        }
        Ok(Losses::new(&collector.counters()?.losses, queue))
    }
}

/// A tracer at work. Dropping it ends the work; [`Tracing::stop`] ends it and returns what was found.
///
/// As an iterator it returns the pages as they come, waits for the next one, and ends when the process has ended.
#[derive(Debug)]
pub struct Tracing(Worker<Page>);

impl Tracing {
    /// Waits for the next page, but no longer than so long. `None` means that there was none.
    pub fn next_within(&mut self, longest: Duration) -> Option<Page> {
        self.0.next_within(longest)
    }

    /// Reads memory that can change by itself once more, and ends. Returns the pages that the iterator hasn't returned, in the order in
    /// which they were read, and what was lost since the start.
    ///
    /// # Errors
    /// If something went wrong on the way.
    pub fn stop(self) -> Result<(Vec<Page>, Losses), Error> {
        self.0.stop()
    }
}

impl Iterator for Tracing {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        self.0.next()
    }
}
