//! How long the child that reads a process's memory is waited for.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::stop::{HASTE, StopSignals, Woken};

/// How long one question may take. Time in which the child runs, or wants to, does not count: what is left is a file system that keeps it
/// waiting, or somebody who holds the process's memory.
const WAIT: Duration = Duration::from_secs(2);

/// The same for a child that begins: it may have to be read from a disk.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// So many bytes of an answer add a second to that: a slow disk has more.
const BYTES_A_SECOND: usize = 8 << 20;

/// Each question has so much even when the run is to end: a child that isn't kept waiting answers in that.
const LEAST: Duration = Duration::from_millis(20);

/// For how long a signal shortens the waiting. A run with a command goes on until the command ends.
const RECENT: Duration = Duration::from_secs(1);

/// How often the reader looks at what the child does.
const LOOK: Duration = Duration::from_millis(20);

/// Waits, and only a moment once a signal that ends the run is pending. It leaves the signal to the one that takes it.
pub(super) struct Patience {
    left: Duration,
    /// The run is to end now.
    is_last: bool,
    /// When such a signal was seen.
    signalled: Option<Instant>,
    signals: StopSignals,
}

impl Patience {
    /// The signals must be blocked to be seen.
    pub(super) fn new() -> Self {
        Self { left: Duration::ZERO, is_last: false, signalled: None, signals: StopSignals::new() }
    }

    /// A question to a child that has answered before, or the first one.
    pub(super) fn begin(&mut self, is_first: bool) {
        self.left = match self.signalled {
            _ if self.is_last => self.left.max(LEAST),
            Some(when) if when.elapsed() < RECENT => self.left.max(LEAST),
            _ if is_first => FIRST_WAIT,
            _ => WAIT,
        };
    }

    /// So many bytes of the answer have come.
    pub(super) fn grant(&mut self, bytes: usize) {
        if !self.is_last && self.signalled.is_none() {
            self.left += Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(0) / BYTES_A_SECOND as u32;
        }
    }

    /// The run is to end now.
    pub(super) fn hurry(&mut self) {
        if !self.is_last {
            (self.left, self.is_last) = (HASTE, true);
        }
    }

    /// Waits until `answers` is readable; `runs` says whether the child runs. False: the time is up.
    pub(super) fn wait(&mut self, answers: BorrowedFd<'_>, runs: impl Fn() -> bool) -> bool {
        loop {
            let begun = Instant::now();
            let is_known = self.is_last || self.signalled.is_some();
            match self.signals.wait(answers, self.left.min(LOOK), is_known) {
                Woken::Ready => return true,
                Woken::Signal => (self.left, self.signalled) = (self.left.min(HASTE), Some(Instant::now())),
                Woken::Neither => {}
            }
            if !runs() {
                self.left = self.left.saturating_sub(begun.elapsed());
            }
            if self.left.is_zero() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::eventfd::EventFd;

    use super::*;

    #[test]
    fn only_the_time_in_which_the_child_waits_counts() {
        let (nothing, answered) = (EventFd::new().unwrap(), EventFd::from_value(1).unwrap());
        let mut patience = Patience::new();
        patience.begin(false);
        let asked = std::cell::Cell::new(0);
        let begun = Instant::now();
        // It runs for as long as it may wait, and then waits.
        assert!(!patience.wait(nothing.as_fd(), || {
            asked.set(asked.get() + 1);
            begun.elapsed() < WAIT
        }));
        assert!(begun.elapsed() >= WAIT * 2 - LOOK * 2 && asked.get() > 10, "{:?}", begun.elapsed());
        assert!(patience.wait(answered.as_fd(), || false), "an answer that is there is taken");
    }

    #[test]
    fn at_the_end_all_questions_share_a_moment() {
        let nothing = EventFd::new().unwrap();
        let mut patience = Patience::new();
        patience.hurry();
        let begun = Instant::now();
        for _ in 0..3 {
            patience.begin(false);
            assert!(!patience.wait(nothing.as_fd(), || false));
        }
        assert!(begun.elapsed() >= HASTE + LEAST * 2 && begun.elapsed() < WAIT, "{:?}", begun.elapsed());
    }
}
