//! `agent --exec-memory`: who makes anonymous memory executable.

use std::collections::VecDeque;
use std::sync::PoisonError;

use anyhow::{Result, bail};

use super::beside::Beside;
use super::output::Output;
use crate::memory::alert::{ExecutableMemory, Ledger};
use crate::output::{ExecutableMetrics, Metrics};
use crate::probe::losses::WRITE_FAILED;
use crate::probe::memory::{Plan, Probe};

/// Intervals that are kept while nothing can be written; then the oldest is given up.
const KEPT_MAX: usize = 64;

pub(super) struct ExecMemory {
    probe: Probe,
    ledger: Ledger,
    metrics: ExecutableMetrics,
    /// What could not be written yet: a look at the kernel's table can't be had again.
    unwritten: VecDeque<ExecutableMemory>,
    /// Calls in records that were given up.
    given_up: u64,
}

impl ExecMemory {
    pub(super) fn start(plan: &Plan, metrics: &Metrics, max_names: usize) -> Result<Self> {
        let probe = Probe::start(plan)?;
        let registry = metrics.registry();
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = ExecutableMetrics::new(&mut registry, max_names);
        Ok(Self { probe, ledger: Ledger::new(), metrics, unwritten: VecDeque::new(), given_up: 0 })
    }
}

impl Beside for ExecMemory {
    fn subject(&self) -> String {
        format!("anonymous memory that becomes executable through {}", self.probe.attached().join(" and "))
    }

    fn tell(&mut self, last: bool, output: &mut Output, metrics: &Metrics) -> Result<()> {
        let record = self.ledger.look(&self.probe, last)?;
        self.metrics.add(&record);
        self.unwritten.push_back(record);
        while let Some(record) = self.unwritten.front() {
            if !output.write(record)? {
                break;
            }
            self.unwritten.pop_front();
        }
        if self.unwritten.len() > KEPT_MAX {
            self.given_up += self.unwritten.pop_front().map_or(0, |record| record.calls);
        }
        let losses = self.probe.counters()?.losses.with(WRITE_FAILED, self.given_up);
        metrics.update_dropped(losses.dropped());
        if last && !self.unwritten.is_empty() {
            let calls: u64 = self.unwritten.iter().map(|record| record.calls).sum();
            bail!("failed to write the last summary of executable memory: {calls} calls are told nowhere");
        }
        Ok(())
    }
}
