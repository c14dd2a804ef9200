//! Is the agent alive?

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Marked by the agent's loop, read by the server.
#[derive(Clone)]
pub(crate) struct Health {
    last: Arc<Mutex<Instant>>,
    patience: Duration,
}

impl Health {
    /// Healthy from now on, as long as it is marked more often than each `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { last: Arc::new(Mutex::new(Instant::now())), patience }
    }

    /// The agent is alive now.
    pub(crate) fn mark(&self) {
        if let Ok(mut last) = self.last.lock() {
            *last = Instant::now();
        }
    }

    pub(super) fn is_well(&self) -> bool {
        self.last.lock().is_ok_and(|last| last.elapsed() < self.patience)
    }
}
