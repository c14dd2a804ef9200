//! `agent --watch-signals`: who sends what to whom.

use std::sync::PoisonError;

use anyhow::{Result, bail};

use super::beside::Beside;
use super::output::Output;
use crate::output::{Metrics, SignalMetrics};
use crate::probe::signal::Probe;
use crate::signal::{self, PairLedger, PairLook};

pub(super) struct Signals {
    probe: Probe,
    ledger: PairLedger,
    metrics: SignalMetrics,
    seen: Option<PairLook>,
}

impl Signals {
    pub(super) fn start(options: &signal::Options, metrics: &Metrics, max_names: usize) -> Result<Self> {
        let probe = Probe::start(&signal::plan(options))?;
        let registry = metrics.registry();
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = SignalMetrics::new(&mut registry, max_names);
        Ok(Self { probe, ledger: PairLedger::new(options.processes)?, metrics, seen: None })
    }
}

impl Beside for Signals {
    fn subject(&self) -> String {
        format!("signals through {}", self.probe.attached().join(" and "))
    }

    fn tell(&mut self, last: bool, output: &mut Output, metrics: &Metrics) -> Result<()> {
        let look = PairLook::take(&self.probe, self.seen.as_ref())?;
        self.metrics.update(look.totals());
        metrics.update_dropped(look.counters().losses.dropped());
        let summary = self.ledger.summarize(&look, last)?;
        if output.write(&summary)? {
            self.ledger.commit(&look);
        } else if last {
            bail!("failed to write the last summary of signals: {} are told nowhere", summary.deliveries.matched);
        }
        self.seen = Some(look);
        Ok(())
    }
}
