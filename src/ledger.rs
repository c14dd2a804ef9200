//! Counts of the kernel, which are reported interval by interval: look (read them), tell (make the record), commit (it is written).
//!
//! A summary reports what came since the last committed look, and a look is committed when its summary was written. So the next summary has
//! the counts of a summary that could not be written, and nothing is lost from the sum.

use anyhow::Result;

use crate::host;
use crate::record::{Head, Interval, Record};
use crate::time::Timestamp;

/// One thing that is counted.
pub(crate) trait Ledger {
    /// What the kernel had counted at one moment.
    type Look;
    /// What came between two looks.
    type Summary: Record;

    /// Looks now. `last`: the run is over, and nothing follows.
    fn look(&mut self, last: bool) -> Result<Self::Look>;

    /// What came since the last look that was committed.
    fn tell(&mut self, look: &Self::Look) -> Result<Self::Summary>;

    /// The summary of this look was written: the next one begins there.
    fn commit(&mut self, look: Self::Look) -> Result<()>;
}

/// One interval of `ledger`: `measure` sees the look, `write` gets the summary and says whether it was written. Returns that.
pub(crate) fn report<L: Ledger>(
    ledger: &mut L,
    last: bool,
    measure: impl FnOnce(&mut L, &L::Look) -> Result<()>,
    write: impl FnOnce(&L::Summary) -> Result<bool>,
) -> Result<bool> {
    let look = ledger.look(last)?;
    measure(ledger, &look)?;
    let summary = ledger.tell(&look)?;
    let is_written = write(&summary)?;
    if is_written {
        ledger.commit(look)?;
    }
    Ok(is_written)
}

/// One run, as its summaries describe it: where it is, when it began, and when the present interval did.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    host: String,
    kernel: String,
    boot_id: Option<String>,
    since: Timestamp,
    from_ns: u64,
}

impl Run {
    /// A run that begins at this moment of CLOCK_BOOTTIME, with its first interval.
    pub(crate) fn new(boottime_ns: u64) -> Result<Self> {
        Ok(Self {
            host: host::name(),
            kernel: host::kernel().0,
            boot_id: host::boot_id(),
            since: Timestamp::from_boottime(boottime_ns)?,
            from_ns: boottime_ns,
        })
    }

    /// The machine's name.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The beginning of a record of this kind on the interval that ends at this moment.
    pub(crate) fn interval(&self, kind: &'static str, until_ns: u64, last: bool) -> Result<(Head, Interval)> {
        let interval = Interval {
            since: self.since,
            interval_seconds: (until_ns.saturating_sub(self.from_ns) / 1_000_000) as f64 / 1000.0,
            kernel: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
            last,
        };
        Ok((Head::at(kind, until_ns, &self.host)?, interval))
    }

    /// The interval that ended at this moment was written: the next one begins there.
    pub(crate) fn commit(&mut self, until_ns: u64) {
        self.from_ns = until_ns;
    }
}
