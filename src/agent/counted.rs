//! What the agent counts: crashes, and beside them whatever it is asked to.

use anyhow::{Result, bail};

use super::output::Output;
use crate::crash;
use crate::ledger::{self, Ledger};
use crate::memory::executable_memory::Executables;
use crate::output::Metrics;
use crate::probe::{memory, signal as pairs};
use crate::{pagefault, signal};

/// A ledger with metrics.
pub(super) trait Counted: Ledger {
    /// What is counted, and by which hooks, for the line on standard error.
    fn subject(&self) -> String;

    /// Brings the metrics up to date.
    fn measure(&mut self, look: &Self::Look, metrics: &mut Metrics) -> Result<()>;

    /// Writes a summary. False: it could not be written.
    ///
    /// # Errors
    /// If the reader has gone.
    fn write(summary: &Self::Summary, output: &mut Output) -> Result<bool> {
        output.write(summary)
    }

    /// What is missing where this summary could not be written and nothing follows.
    fn untold(summary: &Self::Summary) -> String;
}

/// The same, whatever is counted.
pub(super) trait IntervalEnd {
    /// As [`Counted::subject`].
    fn subject(&self) -> String;

    /// Writes what the interval brought. `last`: nothing follows.
    ///
    /// # Errors
    /// If the kernel's numbers can't be read, or the last ones can't be written.
    fn end(&mut self, last: bool, output: &mut Output, metrics: &mut Metrics) -> Result<()>;
}

impl<C: Counted> IntervalEnd for C {
    fn subject(&self) -> String {
        Counted::subject(self)
    }

    fn end(&mut self, last: bool, output: &mut Output, metrics: &mut Metrics) -> Result<()> {
        let measure = |counted: &mut C, look: &C::Look| counted.measure(look, metrics);
        ledger::report(self, last, measure, |summary| {
            let is_written = C::write(summary, output)?;
            if last && !is_written {
                bail!("failed to write the last summary{} are reported nowhere", C::untold(summary));
            }
            Ok(is_written)
        })
        .map(drop)
    }
}

impl Counted for crash::Collector<'_> {
    fn subject(&self) -> String {
        "crashes".to_owned()
    }

    fn measure(&mut self, look: &Self::Look, metrics: &mut Metrics) -> Result<()> {
        metrics.update(&self.totals(look)?);
        Ok(())
    }

    fn write(summary: &Self::Summary, output: &mut Output) -> Result<bool> {
        output.tell(summary)
    }

    fn untold(summary: &Self::Summary) -> String {
        format!(": {} signals", summary.deliveries.matched)
    }
}

impl Counted for signal::Pairs<pairs::Probe> {
    fn subject(&self) -> String {
        format!("signals through {}", self.probe().attached().join(" and "))
    }

    fn measure(&mut self, look: &Self::Look, metrics: &mut Metrics) -> Result<()> {
        metrics.add_sent(look.grown());
        metrics.update_dropped(look.dropped());
        Ok(())
    }

    fn untold(summary: &Self::Summary) -> String {
        format!(" of signals: {}", summary.deliveries.matched)
    }
}

impl Counted for pagefault::Collector {
    fn subject(&self) -> String {
        format!("page faults through {}", self.attached().join(" and "))
    }

    fn measure(&mut self, look: &Self::Look, metrics: &mut Metrics) -> Result<()> {
        let (faults, majors) = look.grown();
        let count = |(labels, count): (&_, &u64)| (Clone::clone(labels), *count);
        metrics.add_faults(faults.iter().map(count), majors.iter().map(|(labels, count)| (labels.clone(), *count)));
        metrics.update_dropped(self.losses().dropped());
        Ok(())
    }

    fn untold(summary: &Self::Summary) -> String {
        format!(" of page faults: {}", summary.faults.matched)
    }
}

impl Counted for Executables<memory::Probe> {
    fn subject(&self) -> String {
        format!("anonymous memory that becomes executable through {}", self.probe().attached().join(" and "))
    }

    fn measure(&mut self, look: &Self::Look, metrics: &mut Metrics) -> Result<()> {
        metrics.add_executable(look.grown());
        metrics.update_dropped(look.dropped());
        Ok(())
    }

    fn untold(summary: &Self::Summary) -> String {
        format!(" of executable memory: {} calls", summary.calls)
    }
}
