//! Counts who sent what to whom: reports the kernel's table of pairs every interval.

use std::borrow::Borrow;
use std::collections::HashMap;

use anyhow::Result;

use super::decode::result_word;
use crate::ledger::{Ledger, Run};
use crate::output::{Dropped, SentLabels, Timestamp, boottime_ns};
use crate::probe::LossOutput;
use crate::probe::abi::signal::fl_result;
use crate::probe::losses::PAIR_TABLE_FULL;
use crate::probe::signal::{Counters, Pair, PairKey, Probe};
use crate::record::signal::{PairRow, SignalSummary};
use crate::record::summary::Deliveries;
use crate::siginfo::signal_name;
use crate::text;

/// What was reported last.
struct PairLedger {
    run: Run,
    /// Report forks, execs and exits.
    processes: bool,
    committed: HashMap<PairKey, u64>,
    counters: Counters,
}

/// One read of the kernel's counters.
#[derive(Clone, Debug)]
pub(crate) struct PairLook {
    pairs: Vec<Pair>,
    /// What each pair has had since the look before.
    grown: Vec<u64>,
    counters: Counters,
    boottime_ns: u64,
    last: bool,
}

impl PairLook {
    /// What came since the look before, for metrics.
    pub(crate) fn grown(&self) -> impl Iterator<Item = (SentLabels, u64)> {
        self.pairs.iter().zip(&self.grown).filter(|(_, count)| **count != 0).map(|(pair, count)| {
            let PairNames { signal, sender, target, result } = PairNames::of(pair);
            (SentLabels::new(signal, sender, target, result), *count)
        })
    }

    /// What was lost on the way since the start, for metrics.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = Dropped> {
        self.counters.losses.dropped()
    }
}

/// A pair's key in words.
struct PairNames {
    signal: String,
    sender: Option<String>,
    target: String,
    result: Option<&'static str>,
}

impl PairNames {
    fn of(pair: &Pair) -> Self {
        let key = &pair.key;
        Self {
            signal: signal_name(key.signal.into()),
            sender: (key.has_sender != 0).then(|| text::name(&key.sender)),
            target: text::name(&key.target),
            result: result_word(fl_result(key.result.into())),
        }
    }
}

/// The kernel's table of pairs, reported every interval.
pub(crate) struct Pairs<P: Borrow<Probe>> {
    probe: P,
    ledger: PairLedger,
    /// The pairs of the last look, and how many signals they had been.
    seen: (Vec<Pair>, u64),
}

impl<P: Borrow<Probe>> Pairs<P> {
    /// Begins now. `processes`: report forks, execs and exits, too.
    pub(crate) fn new(probe: P, processes: bool) -> Result<Self> {
        Ok(Self { probe, ledger: PairLedger::new(processes)?, seen: (Vec::new(), 0) })
    }

    /// The probe that is read.
    pub(crate) fn probe(&self) -> &Probe {
        self.probe.borrow()
    }
}

impl<P: Borrow<Probe>> Ledger for Pairs<P> {
    type Look = PairLook;
    type Summary = SignalSummary;

    /// The table is read anew only where the counters say that something came, and for the last time in any case.
    fn look(&mut self, last: bool) -> Result<PairLook> {
        let probe = self.probe.borrow();
        let counters = probe.counters()?;
        let (seen, signals) = &self.seen;
        let pairs = if counters.signals == *signals && !last { seen.clone() } else { probe.pairs()? };
        let before: HashMap<PairKey, u64> = seen.iter().map(|pair| (pair.id(), pair.count)).collect();
        let grown = |pair: &Pair| pair.count.saturating_sub(before.get(&pair.id()).copied().unwrap_or(0));
        let grown = pairs.iter().map(grown).collect();
        self.seen = (pairs.clone(), counters.signals);
        Ok(PairLook { pairs, grown, counters, boottime_ns: boottime_ns()?, last })
    }

    fn tell(&mut self, look: &PairLook) -> Result<SignalSummary> {
        self.ledger.summarize(look)
    }

    fn commit(&mut self, look: PairLook) -> Result<()> {
        self.ledger.commit(&look);
        Ok(())
    }
}

impl PairLedger {
    fn new(processes: bool) -> Result<Self> {
        let run = Run::new(boottime_ns()?)?;
        Ok(Self { run, processes, committed: HashMap::new(), counters: Counters::default() })
    }

    /// What came since the last summary that was committed, with all pairs there were if it is the last one.
    fn summarize(&self, look: &PairLook) -> Result<SignalSummary> {
        let mut pairs = Vec::new();
        for pair in &look.pairs {
            let count = pair.count.saturating_sub(self.committed.get(&pair.id()).copied().unwrap_or(0));
            if count == 0 && !look.last {
                continue;
            }
            let PairNames { signal, sender, target, result } = PairNames::of(pair);
            let (first_seen, last_seen) =
                (Timestamp::from_boottime(pair.first_ns)?, Timestamp::from_boottime(pair.last_ns)?);
            let total = pair.count;
            pairs.push(PairRow { signal, sender, target, result, count, total, first_seen, last_seen });
        }
        pairs.sort_by(|a, b| b.count.cmp(&a.count).then(b.total.cmp(&a.total)).then(a.target.cmp(&b.target)));
        let losses = look.counters.losses.since(&self.counters.losses);
        let counted: u64 = pairs.iter().map(|pair| pair.count).sum();
        let (head, interval) = self.run.interval("signal_summary", look.boottime_ns, look.last)?;
        Ok(SignalSummary {
            head,
            interval,
            pairs,
            // The sum of the same read, not the kernel's counter, which has moved on while the table was read.
            deliveries: Deliveries {
                matched: counted + losses.get(PAIR_TABLE_FULL),
                filtered: look.counters.filtered.saturating_sub(self.counters.filtered),
            },
            processes: self.processes.then(|| look.counters.tasks.since(&self.counters.tasks)),
            losses: losses.field(LossOutput::Losses),
        })
    }

    fn commit(&mut self, look: &PairLook) {
        self.committed = look.pairs.iter().map(|pair| (pair.id(), pair.count)).collect();
        self.counters = look.counters;
        self.run.commit(look.boottime_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Losses;
    use crate::probe::abi::signal::fl_pair;
    use crate::probe::losses::SIGNAL;

    fn pair(signal: u8, count: u64) -> Pair {
        Pair { key: fl_pair { signal, ..fl_pair::default() }, count, first_ns: 1, last_ns: 2 }
    }

    fn look(pairs: Vec<Pair>, table_full: u64) -> PairLook {
        let losses = Losses::none(&SIGNAL).with(PAIR_TABLE_FULL, table_full);
        let counters = Counters { losses, ..Counters::default() };
        PairLook { grown: vec![0; pairs.len()], pairs, counters, boottime_ns: 2_000_000_000, last: false }
    }

    #[test]
    fn what_could_not_be_written_is_told_with_the_next() {
        let mut ledger = PairLedger::new(false).unwrap();
        let first = ledger.summarize(&look(vec![pair(15, 3)], 1)).unwrap();
        assert_eq!((first.deliveries.matched, first.pairs[0].count), (4, 3));
        let second = look(vec![pair(15, 5), pair(9, 1)], 2);
        let summary = ledger.summarize(&second).unwrap();
        assert_eq!((summary.deliveries.matched, summary.losses[PAIR_TABLE_FULL]), (8, 2));
        ledger.commit(&second);
        let third = ledger.summarize(&look(vec![pair(15, 6), pair(9, 1)], 2)).unwrap();
        assert_eq!((third.deliveries.matched, third.pairs.len()), (1, 1));
        assert_eq!((third.pairs[0].count, third.pairs[0].total), (1, 6));
    }
}
