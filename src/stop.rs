//! The signals that end a run, for code that waits for something else.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// How long all that a run still waits for may take together, once somebody wants it to end.
pub(crate) const HASTE: Duration = Duration::from_millis(300);

/// SIGINT and SIGTERM while they are pending. It leaves them to the one that takes them as events.
pub(crate) struct StopSignals {
    /// Readable while one is pending. `None` means that there can't be more descriptors.
    pending: Option<SignalFd>,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// What was waited for is ready.
    Ready,
    /// A signal that ends the run is pending.
    Signal,
    /// Neither: the time is up, or a signal was handled meanwhile.
    Neither,
}

impl StopSignals {
    /// The signals must be blocked to be seen.
    pub(crate) fn new() -> Self {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        Self { pending: SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).ok() }
    }

    /// Is one pending?
    pub(crate) fn are_pending(&self) -> bool {
        self.wait_for(None, Duration::ZERO, false) == Woken::Signal
    }

    /// Waits at most so long until `fd` can be read, or a signal is pending. `is_known`: one is, and wakes nobody again.
    pub(crate) fn wait(&self, fd: BorrowedFd<'_>, most: Duration, is_known: bool) -> Woken {
        self.wait_for(Some((fd, PollFlags::POLLIN)), most, is_known)
    }

    /// The same for other events than that it can be read, or for nothing but time and a signal.
    pub(crate) fn wait_for(&self, what: Option<(BorrowedFd<'_>, PollFlags)>, most: Duration, is_known: bool) -> Woken {
        let mut fds: Vec<PollFd<'_>> = what.into_iter().map(|(fd, events)| PollFd::new(fd, events)).collect();
        let number = fds.len();
        let pending = self.pending.as_ref().filter(|_| !is_known);
        fds.extend(pending.map(|pending| PollFd::new(pending.as_fd(), PollFlags::POLLIN)));
        // A part of a millisecond counts as one: else the last one would be spent in a loop.
        let wait = PollTimeout::try_from(most.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        // An error is a signal that was handled meanwhile.
        let _ = poll(&mut fds, wait);
        let is_ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any) == Some(true);
        match (is_ready(fds[..number].first()), is_ready(fds.get(number))) {
            (true, _) => Woken::Ready,
            (_, true) => Woken::Signal,
            _ => Woken::Neither,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EventFd;

    use super::*;

    #[test]
    fn a_pending_signal_ends_a_wait_once_and_stays() {
        let (nothing, answered) = (EventFd::new().unwrap(), EventFd::from_value(1).unwrap());
        let signals: SigSet = [Signal::SIGTERM].into_iter().collect();
        signals.thread_block().unwrap();
        let (long, short) = (Duration::from_secs(600), Duration::from_millis(1));
        let stop = StopSignals::new();
        assert_eq!(stop.wait(nothing.as_fd(), short, false), Woken::Neither);
        assert!(!stop.are_pending());
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        assert_eq!(stop.wait(nothing.as_fd(), long, false), Woken::Signal);
        assert_eq!(stop.wait(nothing.as_fd(), short, true), Woken::Neither, "it is known");
        assert_eq!(stop.wait(answered.as_fd(), long, false), Woken::Ready, "what is there is taken");
        assert!(stop.are_pending());
        assert_eq!(signals.wait().unwrap(), Signal::SIGTERM, "it is still there");
    }
}
