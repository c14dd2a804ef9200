//! Waiting: for samples, for the command's end, for Ctrl-C, for the time to be up. No wake-up that isn't needed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::output::WaitFor;
use crate::probe::abi::fl_limit;
use crate::siginfo::SI_KERNEL;

/// After samples came, the reader looks once more after this time, a little longer than the time without wake-ups of the kernel program.
pub(crate) const LINGER: Duration = Duration::from_millis(fl_limit::FL_LIMIT_WAKE_INTERVAL_MS.0 as u64 + 5);

/// What ended the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// There may be samples.
    Samples,
    /// A child of ours changed its state.
    Child,
    /// SIGINT or SIGTERM.
    Stop {
        /// Which one.
        signal: Signal,
        /// The terminal sent it, to our children as well.
        from_terminal: bool,
    },
    /// The duration is over.
    TimeUp,
    /// The time of [`Watch::tick_at`] has come.
    Tick,
    /// SIGHUP: the output's file was moved away.
    Hangup,
    /// The output may take more.
    Room,
    /// The process of [`Watch::await_end`] has ended.
    Ended,
}

/// The signals that end a run, taken as events from when this is made.
pub(crate) struct Watch {
    signals: SignalFd,
    deadline: Option<Instant>,
    next_tick: Option<Instant>,
    linger_until: Option<Instant>,
    /// A process whose end is an event.
    awaited: Option<OwnedFd>,
}

impl Watch {
    /// Takes SIGINT, SIGTERM and SIGCHLD as events; a `duration` of `None` has no end. Call it before there are other threads.
    pub(crate) fn new(duration: Option<Duration>) -> Result<Self> {
        Self::with_signals(duration, &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD])
    }

    /// The same, with SIGHUP as an event rather than the end.
    pub(crate) fn with_hangup(duration: Option<Duration>) -> Result<Self> {
        Self::with_signals(duration, &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGHUP])
    }

    fn with_signals(duration: Option<Duration>, signals: &[Signal]) -> Result<Self> {
        let mask: SigSet = signals.iter().copied().collect();
        mask.thread_block().context("failed to block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("failed to make a signalfd")?;
        // Ignored, as some parents leave it to us, children would end without a word.
        // SAFETY: SIG_DFL installs no handler, so no code of ours runs at any time that it must be safe for.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.context("failed to reset SIGCHLD")?;
        let deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
        Ok(Self { signals, deadline, next_tick: None, linger_until: None, awaited: None })
    }

    /// The next [`Event::Tick`] comes then, and only once.
    pub(crate) fn tick_at(&mut self, when: Instant) {
        self.next_tick = Some(when);
    }

    /// The end of this process comes as [`Event::Ended`]. False: it has ended.
    pub(crate) fn await_end(&mut self, pid: u32) -> Result<bool> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        self.awaited = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(process)) => Some(process).filter(|process| !is_readable(process.as_fd())),
            None | Some(Err(rustix::io::Errno::SRCH)) => None,
            Some(Err(error)) => return Err(error).context("failed to wait for the end of a process"),
        };
        Ok(self.awaited.is_some())
    }

    /// Call it after `taken` of at most `most` samples were taken. If there are more, the next event comes at once; samples
    /// that wake no reader may come as well.
    pub(crate) fn took(&mut self, taken: usize, most: usize) {
        let wait = match taken {
            0 => return,
            _ if taken < most => LINGER,
            _ => Duration::ZERO,
        };
        self.linger_until = Some(Instant::now() + wait);
    }

    /// Waits for the next event. `samples`: readable when samples came after a pause. `output`: what the output waits for.
    pub(crate) fn next(&mut self, samples: BorrowedFd<'_>, output: WaitFor<'_>) -> Result<Event> {
        let room_at = match output {
            WaitFor::Time(time) => Some(Instant::now() + time),
            WaitFor::Room(_) | WaitFor::Nothing => None,
        };
        loop {
            if let Some(event) = self.signal()? {
                return Ok(event);
            }
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(Event::TimeUp);
            }
            if self.next_tick.is_some_and(|tick| tick <= now) {
                self.next_tick = None;
                return Ok(Event::Tick);
            }
            if self.linger_until.is_some_and(|until| until <= now) {
                self.linger_until = None;
                return Ok(Event::Samples);
            }
            if room_at.is_some_and(|at| at <= now) {
                return Ok(Event::Room);
            }
            let until = [self.deadline, self.next_tick, self.linger_until, room_at].into_iter().flatten().min();
            let mut fds =
                vec![PollFd::new(samples, PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            // Without a process there is nothing to be seen of it.
            let awaited = self.awaited.as_ref().map_or(self.signals.as_fd(), AsFd::as_fd);
            let wanted = if self.awaited.is_some() { PollFlags::POLLIN } else { PollFlags::empty() };
            fds.push(PollFd::new(awaited, wanted));
            if let WaitFor::Room(room) = output {
                fds.push(PollFd::new(room, PollFlags::POLLOUT));
            }
            match poll(&mut fds, timeout(until.map(|until| until - now))) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("failed to wait for samples"),
            }
            let is_ready = |index: usize| fds.get(index).is_some_and(|fd| fd.any() == Some(true));
            let (has_samples, has_ended, has_room) = (is_ready(0), is_ready(2), is_ready(3));
            if has_samples {
                return Ok(Event::Samples);
            }
            if has_ended && self.awaited.take().is_some() {
                return Ok(Event::Ended);
            }
            if has_room {
                return Ok(Event::Room);
            }
        }
    }

    fn signal(&mut self) -> Result<Option<Event>> {
        let Some(info) = self.signals.read_signal().context("failed to read a signal")? else { return Ok(None) };
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        Ok(signal.map(|signal| match signal {
            Signal::SIGCHLD => Event::Child,
            Signal::SIGHUP => Event::Hangup,
            signal => Event::Stop { signal, from_terminal: info.ssi_code == SI_KERNEL /* Ctrl-C */ },
        }))
    }
}

/// Is there something to be read at once? Of a process: it has ended.
fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(ready) if ready > 0)
}

/// Rounded up to whole milliseconds, so that a wait never ends too early and spins.
fn timeout(wait: Option<Duration>) -> PollTimeout {
    match wait {
        None => PollTimeout::NONE,
        Some(wait) => {
            let milliseconds = wait.as_micros().div_ceil(1000);
            PollTimeout::from(u16::try_from(milliseconds).unwrap_or(u16::MAX))
        }
    }
}
