//! The library's interface: a tracer of one process, on a thread of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procfs::process::Process;

use super::collect::{BATCH, Collector, Item, Limits};
use super::record::Page;
use super::target::Memory;
use crate::probe::memory::{Plan, Probe};
use crate::probe::{Filter, Setup};

/// How often memory that can change by itself is read again.
const INTERVAL: Duration = Duration::from_millis(100);

/// Keeps every page of a process that becomes executable.
///
/// Needs what `faultline memory` needs: CAP_BPF and CAP_PERFMON, and the right to trace the process. It sees all threads of
/// the process, and no other process; other tracers of the same process don't disturb it.
///
/// ```
/// use faultline::memory::{Tracer, Trigger};
///
/// # fn main() -> anyhow::Result<()> {
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
/// let pages = tracing.stop()?;
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
}

impl Tracer {
    /// A tracer of the process with this number.
    ///
    /// # Errors
    /// If there is no such process, it is a thread of another one, or we may not trace it.
    pub fn new(pid: u32) -> Result<Self> {
        let what = || format!("failed to trace PID {pid}");
        Filter { pids: vec![pid], ..Filter::default() }.check()?;
        if !Filter::default().is_of_host()? {
            bail!("{}: processes are read by the numbers that the host gives them: run in its pid namespace", what());
        }
        match Memory::open(pid) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!("{}: no such process", what()),
            Err(error) => {
                let cure = "run as the same user with CAP_SYS_PTRACE, or as root";
                return Err(error).with_context(|| format!("{}: not allowed to read its memory, {cure}", what()));
            }
        }
        Ok(Self { pid, max_bytes: 64 << 20, interval: INTERVAL })
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

    /// Starts. When it returns, nothing is missed any more. Memory that is executable already comes first, with the trigger
    /// [`super::Trigger::Attach`].
    ///
    /// # Errors
    /// The errors of `faultline memory`: missing privileges, a kernel without the features.
    pub fn start(self) -> Result<Tracing> {
        let (pages_in, pages) = channel();
        let (ready, is_ready) = sync_channel(1);
        let (stop, stopped) = nix::unistd::pipe().context("failed to make a pipe")?;
        let thread = std::thread::Builder::new()
            .name("faultline-memory".to_owned())
            .spawn(move || {
                let mut pass = |item: Item| {
                    if let Item::Page(page) = item {
                        // The receiver is gone: the run ends.
                        let _ = pages_in.send(*page);
                    }
                    Ok(())
                };
                self.work(&stop, &ready, &mut pass)
            })
            .context("failed to start a thread")?;
        let told: Result<()> = is_ready.recv().unwrap_or_else(|_| Err(anyhow!("failed to trace: the thread ended")));
        let tracing = Tracing { pages, stop: Some(stopped), thread: Some(thread) };
        told.map(|()| tracing)
    }

    /// Runs on the thread: everything of libbpf stays there.
    fn work(
        self,
        stop: &OwnedFd,
        ready: &SyncSender<Result<()>>,
        pass: &mut dyn FnMut(Item) -> Result<()>,
    ) -> Result<()> {
        let plan = Plan {
            setup: Setup { filter: Filter { pids: vec![self.pid], ..Filter::default() }, ..Setup::default() },
            follow: false,
            show_all: false,
            pages: true,
            headers: false,
            executable_memory: false,
        };
        let begin = || -> Result<Probe> { Probe::start(&plan) };
        let probe = match begin() {
            Ok(probe) => probe,
            Err(error) => {
                let _ = ready.send(Err(error));
                return Ok(());
            }
        };
        let limits = Limits { pages: true, max_bytes: self.max_bytes };
        let begun = Collector::new(&probe, limits).and_then(|mut collector| {
            collector.attach(self.pid, pass)?;
            Ok(collector)
        });
        let mut collector = match begun {
            Ok(collector) => collector,
            Err(error) => {
                let _ = ready.send(Err(error));
                return Ok(());
            }
        };
        let _ = ready.send(Ok(()));
        let mut tick = Instant::now() + collector.patience(self.interval);
        loop {
            let now = Instant::now();
            if now >= tick {
                collector.tick(pass)?;
                tick = Instant::now() + collector.patience(self.interval);
                continue;
            }
            let wait = u16::try_from((tick - now).as_millis() + 1).unwrap_or(u16::MAX);
            let mut fds =
                [PollFd::new(collector.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(wait)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("failed to wait for samples"),
            }
            let is_stopped = fds[1].any() == Some(true);
            while collector.take(pass)? == BATCH {}
            if is_stopped || collector.have_ended(&[self.pid]) || !is_there(self.pid) {
                return collector.finish(pass);
            }
        }
    }
}

fn is_there(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| Process::new(pid).is_ok())
}

/// A tracer at work. Dropping it ends the work; [`Tracing::stop`] ends it and returns what was found.
///
/// As an iterator it returns the pages as they come, waits for the next one, and ends when the process has ended.
#[derive(Debug)]
pub struct Tracing {
    pages: Receiver<Page>,
    /// When it is closed, the thread ends.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Tracing {
    /// Reads memory that can change by itself once more, and ends. Returns the pages that the iterator hasn't returned, in the order in
    /// which they were read.
    ///
    /// # Errors
    /// If something went wrong on the way.
    pub fn stop(mut self) -> Result<Vec<Page>> {
        self.end()?;
        Ok(self.pages.try_iter().collect())
    }

    fn end(&mut self) -> Result<()> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("failed to trace: the thread ended in a panic")),
            None => Ok(()),
        }
    }
}

impl Iterator for Tracing {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        self.pages.recv().ok()
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // The receiver is gone.
        let _ = self.end();
    }
}
