//! How long the main process waits for names.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::stop::{HASTE, StopSignals, Woken};

/// Waits until a time, and only a moment once a signal that ends the run is pending. It leaves the signal to the one that takes it.
pub(crate) struct Patience {
    until: Instant,
    /// No new time is set any more.
    is_last: bool,
    /// Such a signal is pending.
    is_cut: bool,
    signals: StopSignals,
}

impl Patience {
    /// Waits for nothing yet. The signals must be blocked to be seen.
    pub(crate) fn new() -> Self {
        Self { until: Instant::now(), is_last: false, is_cut: false, signals: StopSignals::new() }
    }

    /// All that is asked for from now on may take so long together, unless the run ends.
    pub(crate) fn begin(&mut self, wait: Duration) {
        if !self.is_last {
            (self.until, self.is_cut) = (Instant::now() + wait, false);
        }
    }

    /// The same for the end of the run.
    pub(crate) fn begin_last(&mut self, wait: Duration) {
        self.begin(wait);
        self.is_last = true;
    }

    /// The run is to end now.
    pub(crate) fn hurry(&mut self) {
        self.begin_last(HASTE);
    }

    /// Waits until `answers` is readable. False: the time is up.
    pub(super) fn wait(&mut self, answers: BorrowedFd<'_>) -> bool {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            match self.signals.wait(answers, left, self.is_cut) {
                Woken::Ready => return true,
                Woken::Signal => (self.until, self.is_cut) = (self.until.min(Instant::now() + HASTE), true),
                Woken::Neither => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::eventfd::EventFd;
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn it_ends_in_time_and_the_last_time_stands() {
        let nothing = EventFd::new().unwrap();
        let mut patience = Patience::new();
        assert!(!patience.wait(nothing.as_fd()), "nothing was begun");
        patience.begin(Duration::from_millis(20));
        assert!(!patience.wait(nothing.as_fd()));
        patience.begin(Duration::from_secs(600));
        patience.begin_last(Duration::from_millis(20));
        patience.begin(Duration::from_secs(600));
        assert!(!patience.wait(nothing.as_fd()));
        let answered = EventFd::from_value(1).unwrap();
        assert!(!patience.wait(answered.as_fd()), "the time is up");
        let mut patience = Patience::new();
        patience.begin(Duration::from_secs(600));
        assert!(patience.wait(answered.as_fd()));
    }

    #[test]
    fn a_pending_signal_cuts_it_short() {
        let signals: nix::sys::signal::SigSet = [Signal::SIGTERM].into_iter().collect();
        signals.thread_block().unwrap();
        let nothing = EventFd::new().unwrap();
        let mut patience = Patience::new();
        patience.begin(Duration::from_secs(600));
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        let before = Instant::now();
        assert!(!patience.wait(nothing.as_fd()));
        assert!(before.elapsed() < Duration::from_secs(60));
        assert_eq!(signals.wait().unwrap(), Signal::SIGTERM, "it is still there");
    }
}
