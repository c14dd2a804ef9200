//! `agent --pagefaults`: page faults by process.

use std::sync::PoisonError;

use anyhow::{Result, bail};

use super::beside::Beside;
use super::output::Output;
use crate::output::{Metrics, PagefaultMetrics};
use crate::pagefault;

pub(super) struct Pagefaults {
    collector: pagefault::Collector,
    metrics: PagefaultMetrics,
}

impl Pagefaults {
    pub(super) fn start(options: &pagefault::Options, metrics: &Metrics, max_names: usize) -> Result<Self> {
        let collector = pagefault::Collector::start(options)?;
        let registry = metrics.registry();
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { collector, metrics: PagefaultMetrics::new(&mut registry, max_names) })
    }
}

impl Beside for Pagefaults {
    fn subject(&self) -> String {
        format!("page faults through {}", self.collector.attached().join(" and "))
    }

    fn tell(&mut self, last: bool, output: &mut Output, metrics: &Metrics) -> Result<()> {
        if last {
            self.collector.detach();
        }
        let [faults, majors] = self.collector.drain(|_| Ok(()))?;
        self.metrics.add(&faults, &majors);
        let summary = self.collector.summary(last)?;
        if output.write(&summary)? {
            self.collector.commit(&summary);
        } else if last {
            bail!("failed to write the last summary of page faults: {} are told nowhere", summary.faults.matched);
        }
        metrics.update_dropped(self.collector.losses().dropped());
        Ok(())
    }
}
