//! Does the server answer? It is asked by the loop that counts, and asks itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The questions that were put to the server, and those that it has answered.
#[derive(Clone, Default)]
pub(crate) struct Life {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    asked: AtomicU64,
    answered: AtomicU64,
    wake: Notify,
}

impl Life {
    /// Has the server answered what it was asked at the last call? Asks again.
    #[must_use]
    pub(crate) fn ask(&self) -> bool {
        let asked = self.shared.asked.load(Ordering::Acquire);
        let has_answered = self.shared.answered.load(Ordering::Acquire) >= asked;
        if has_answered {
            self.shared.asked.store(asked + 1, Ordering::Release);
        }
        // As well where the first wake-up was lost with a task that ended.
        self.shared.wake.notify_one();
        has_answered
    }

    /// The next question that is to be answered.
    pub(super) async fn question(&self) -> u64 {
        loop {
            self.shared.wake.notified().await;
            let asked = self.shared.asked.load(Ordering::Acquire);
            if self.shared.answered.load(Ordering::Acquire) < asked {
                return asked;
            }
        }
    }

    pub(super) fn answer(&self, question: u64) {
        self.shared.answered.fetch_max(question, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_is_noticed_until_it_is() {
        let life = Life::default();
        assert!(life.ask(), "nothing was asked before");
        assert!(!life.ask() && !life.ask());
        life.answer(1);
        assert!(life.ask());
        assert!(!life.ask());
    }
}
