//! Reads the probe's maps and makes records and summaries.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;

use super::ledger::{Ledger, Look};
use super::stacks::Stacks;
use super::{Decoder, Options, Recorded};
use crate::evidence::Evidence;
use crate::ledger;
use crate::output::{Timestamp, Totals, boottime_ns};
use crate::probe::abi::Sample;
use crate::probe::crash::Probe;
use crate::probe::losses::{self, GROUP_TABLE_FULL};
use crate::probe::{Counters, Group, Groups, Losses, Ring};
use crate::record::crash::{Crash, Disposition};
use crate::record::summary::Summary;
use crate::session::BATCH;

/// Reads an attached probe.
pub struct Collector<'run> {
    probe: &'run Probe,
    decoder: Decoder,
    ring: Ring<Sample>,
    stacks: Stacks,
    ledger: Ledger,
    handled: bool,
    /// The groups of the last read.
    seen: RefCell<Option<Groups>>,
    /// Losses of user space's own, since the start.
    own_losses: Losses,
}

impl<'run> Collector<'run> {
    /// Begins to read `probe`.
    ///
    /// # Errors
    /// If the ring can't be mapped.
    pub fn new(probe: &'run Probe, decoder: Decoder, options: &Options) -> Result<Self> {
        let ring = probe.ring()?;
        let ledger = Ledger::new(boottime_ns()?)?;
        let mut decoder = decoder;
        probe.know_libcs(&decoder.take_libcs())?;
        Ok(Self {
            probe,
            decoder,
            ring,
            stacks: Stacks::default(),
            ledger,
            handled: options.handled,
            seen: RefCell::new(None),
            own_losses: Losses::none(&losses::CRASH),
        })
    }

    /// Takes one batch of the samples that are there; returns how many. Each is a record, except those that only name their group.
    ///
    /// # Errors
    /// What `write` says, and where the ring can't be read.
    pub fn take(&mut self, write: impl FnMut(Crash) -> Result<()>) -> Result<usize> {
        self.take_with(|_, _| Ok(None), write)
    }

    /// The same. `recorded` says which kernel calls were recorded before a signal.
    ///
    /// # Errors
    /// As [`Collector::take`], and what `recorded` says.
    pub fn take_with(
        &mut self,
        mut recorded: impl FnMut(&Evidence, Disposition) -> Result<Option<Recorded>>,
        mut write: impl FnMut(Crash) -> Result<()>,
    ) -> Result<usize> {
        let samples = self.ring.take(BATCH)?;
        let taken = samples.len();
        for sample in samples {
            let sample = match sample {
                Sample::Crash(crash) => crash,
                Sample::StackPage(page) => {
                    self.stacks.add(page);
                    continue;
                }
            };
            let stack = self.stacks.take(&sample);
            let is_new = sample.group != u32::MAX && !self.ledger.knows(sample.group);
            let mut found = self.decoder.gather(&sample, &stack, is_new)?;
            self.probe.know_libcs(&self.decoder.take_libcs())?;
            if let Some(identity) = found.identity.take() {
                self.ledger.learn(sample.group, identity);
            }
            let disposition = Disposition::from(sample.disposition);
            if disposition.is_death() || self.handled {
                let recorded = recorded(&found.evidence, disposition)?;
                write(self.decoder.record(&sample, found, recorded))?;
            }
        }
        Ok(taken)
    }

    /// Takes what a full ring may hold, and no more.
    ///
    /// # Errors
    /// As [`Collector::take`].
    pub fn take_last(&mut self, mut write: impl FnMut(Crash) -> Result<()>) -> Result<()> {
        let mark = self.ring.mark();
        while !self.ring.is_past(mark) && self.take(&mut write)? != 0 {}
        Ok(())
    }

    /// Where the samples come from.
    pub(crate) fn ring(&self) -> &Ring<Sample> {
        &self.ring
    }

    /// Counts what user space has lost itself.
    pub fn lost(&mut self, reason: &str, count: u64) {
        self.own_losses.add(reason, count);
    }

    /// The counters since the start, here and in the kernel.
    ///
    /// # Errors
    /// If a map can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let counters = self.probe.counters()?;
        Ok(Counters { losses: counters.losses.plus(&self.own_losses), ..counters })
    }

    /// All groups. They are read again only if the counters show that something was counted: an idle agent has nothing to do.
    fn groups(&self, counters: &Counters) -> Result<Groups> {
        // A group is counted before the counters, so that equal sums mean that nothing is missing.
        if let Some(groups) = self.seen.borrow().as_ref().filter(|groups| groups.total() == counters.matched) {
            return Ok(groups.clone());
        }
        let groups = self.probe.groups()?;
        *self.seen.borrow_mut() = Some(groups.clone());
        Ok(groups)
    }

    /// All numbers of a look since the start, for metrics.
    ///
    /// # Errors
    /// If a clock can't be read.
    pub fn totals(&self, look: &Look) -> Result<Totals> {
        let groups = &look.groups;
        let is_fatal = |group: &&Group| Disposition::from(group.facts.key.disposition).is_death();
        let last_ns = groups.named.iter().filter(is_fatal).map(|group| group.facts.last_ns).max();
        let last = last_ns.map(Timestamp::from_boottime).transpose()?;
        Ok(Totals {
            groups: groups.named.iter().map(|group| self.ledger.total(group)).collect(),
            groups_limit: self.probe.group_limit(),
            filtered: look.counters.filtered,
            dropped: look.losses().dropped().collect(),
            last_crash: last.map(|moment| (moment.unix_ns() / 1000) as f64 / 1e6),
        })
    }

    /// Was anything lost that counts for `--strict`?
    ///
    /// # Errors
    /// If a map can't be read.
    pub fn lost_any(&self) -> Result<bool> {
        Ok(self.counters()?.losses.with(GROUP_TABLE_FULL, self.probe.groups()?.other).lost_any())
    }
}

impl ledger::Ledger for Collector<'_> {
    type Look = Look;
    type Summary = Summary;

    fn look(&mut self, last: bool) -> Result<Look> {
        let counters = self.counters()?;
        Ok(Look { boottime_ns: boottime_ns()?, groups: self.groups(&counters)?, counters, last })
    }

    fn tell(&mut self, look: &Look) -> Result<Summary> {
        self.ledger.summarize(look, |id| self.probe.stack(id))
    }

    fn commit(&mut self, look: Look) -> Result<()> {
        self.ledger.commit(&look);
        Ok(())
    }
}

impl AsFd for Collector<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
