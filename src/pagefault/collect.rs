//! Reads the probe's tables and makes records.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::Result;

use super::names::{Names, is_alive};
use super::record::by_name;
use super::table::FaultTable;
use super::{Options, flame, plan};
use crate::ledger::{Ledger, Run};
use crate::naming::Naming;
use crate::output::{FaultLabels, Format, ProcessLabels, boottime_ns};
use crate::probe::abi::pagefault::{Sample, fl_fault_key};
use crate::probe::losses::{GROUP_TABLE_FULL, MAJOR_UNPLACED, PAGEFAULT, STACK_TABLE_FULL, SYMBOLS_FAILED};
use crate::probe::pagefault::{By, Counters, FaultCounts, Probe};
use crate::probe::{LossOutput, Losses, Ring};
use crate::record::pagefault::{FaultGroup, FaultKind, FaultRecord, Faults, Omitted, Summary};
use crate::session::BATCH;

/// How many groups the text shows by default.
const TEXT_ROWS: usize = 20;

/// Reads an attached probe.
pub(crate) struct Collector {
    probe: Probe,
    ring: Ring<Sample>,
    by: By,
    /// How many groups are shown.
    rows: usize,
    table: FaultTable,
    names: Names,
    run: Run,
    /// The end of the last interval that was made a record of.
    until_ns: u64,
    /// The counters at the last read, and when the interval began.
    counters: Counters,
    counters_before: Counters,
    /// The losses among the counters that user space has counted.
    own_losses: Losses,
    /// Faults in a group, and those that found no place in our table: of all intervals that were reported.
    matched_before: u64,
    full_before: u64,
}

/// What came since the look before.
pub(crate) struct Look {
    faults: HashMap<FaultLabels, u64>,
    majors: HashMap<ProcessLabels, u64>,
    last: bool,
}

impl Look {
    /// For metrics: faults, and the major ones among them.
    pub(crate) fn grown(&self) -> (&HashMap<FaultLabels, u64>, &HashMap<ProcessLabels, u64>) {
        (&self.faults, &self.majors)
    }
}

impl Collector {
    /// Begins to read `probe`.
    pub(crate) fn new(options: &Options, probe: Probe) -> Result<Self> {
        let ring = probe.ring()?;
        let now = boottime_ns()?;
        let rows = if options.common.format == Format::Text { TEXT_ROWS } else { usize::MAX };
        Ok(Self {
            probe,
            ring,
            by: options.by,
            rows: options.top.unwrap_or(rows),
            table: FaultTable::default(),
            names: Names::new(Naming::new(options.debug_dirs.clone())?),
            run: Run::new(now)?,
            until_ns: now,
            counters: Counters::default(),
            counters_before: Counters::default(),
            own_losses: Losses::none(&PAGEFAULT),
            matched_before: 0,
            full_before: 0,
        })
    }

    /// Attaches a probe and begins to read it.
    ///
    /// # Errors
    /// What can't be watched: one line with the cure.
    pub(crate) fn start(options: &Options) -> Result<Self> {
        let probe = Probe::start(&plan(options))?;
        Self::new(options, probe)
    }

    /// The hooks in use, for the line that says so.
    pub(crate) fn attached(&self) -> &[String] {
        self.probe.attached()
    }

    /// The run is to end now: records that get no names soon have none.
    pub(crate) fn hurry(&mut self) {
        self.names.hurry();
    }

    /// Stops counting.
    pub(crate) fn detach(&mut self) {
        self.probe.detach();
        self.names.begin_last();
    }

    /// Takes one batch of samples and passes the events among them to `write`; returns how many there were.
    pub(crate) fn take(&mut self, mut write: impl FnMut(FaultRecord) -> Result<()>) -> Result<usize> {
        let samples = self.ring.take(BATCH)?;
        for sample in &samples {
            if let Sample::Mapping(mapping) = sample {
                self.names.learn_mapping(mapping)?;
            }
        }
        self.names.begin();
        for sample in &samples {
            let Sample::Fault(fault) = sample else { continue };
            // Which mounts a new process is in says where its files are looked for.
            let new = (!self.names.knows(fault.key.tgid)).then_some(fault.key.tgid);
            let stack = (self.by == By::Stack).then_some(fault.key.place);
            self.names.ask(&self.probe, new.into_iter(), stack.into_iter())?;
            let record = FaultRecord::new(fault, self.by, self.probe.way(), self.run.host(), &mut self.names)?;
            if self.names.take_failed() {
                self.lost(SYMBOLS_FAILED, 1);
            }
            write(record)?;
        }
        Ok(samples.len())
    }

    /// Moves what was counted from the kernel's table to ours, and learns what it stands for. Returns what was new.
    pub(crate) fn drain(&mut self, mut write: impl FnMut(FaultRecord) -> Result<()>) -> Result<FaultCounts> {
        let counts = self.probe.drain()?;
        let mark = self.ring.mark();
        while self.take(&mut write)? == BATCH && !self.ring.is_past(mark) {}
        let pids: HashSet<u32> = counts.faults.iter().map(|(key, _)| key.tgid).collect();
        let hashes: HashSet<u64> = match self.by {
            By::Stack => counts.faults.iter().map(|(key, _)| key.place).collect(),
            _ => HashSet::new(),
        };
        self.names.ask(&self.probe, pids.into_iter(), hashes.into_iter())?;
        self.table.add(&counts, is_alive, |pid| self.names.comm(pid));
        let counters = self.probe.counters()?;
        self.counters = Counters { losses: counters.losses.plus(&self.own_losses), ..counters };
        Ok(counts)
    }

    fn comm(&self, key: &fl_fault_key) -> String {
        self.names.comm(key.tgid).unwrap_or_default()
    }

    fn labels(&self, key: &fl_fault_key) -> FaultLabels {
        let FaultKind { mode, access, cause, .. } = FaultKind::new(self.probe.way(), key.mode, key.error_code, 0);
        FaultLabels { comm: self.comm(key), mode, access: access.unwrap_or_default(), cause: cause.unwrap_or_default() }
    }

    /// What the interval that ends now has had. Call [`Collector::begin`] when it was written: else the next one has it, too.
    pub(crate) fn summary(&mut self, last: bool) -> Result<Summary> {
        let now = boottime_ns()?;
        let (by, way, tells_majors) = (self.by, self.probe.way(), self.probe.tells_majors());
        let sorted = self.table.sorted(last);
        let rows = self.rows.min(sorted.len());
        let mut omitted = Omitted { groups: sorted.len() - rows, ..Omitted::default() };
        for (_, row) in &sorted[rows..] {
            omitted.count += row.count;
            omitted.total += row.total;
        }
        let names = &mut self.names;
        names.begin();
        let (mut groups, mut nameless) = (Vec::with_capacity(rows), 0);
        for (cell, row) in &sorted[..rows] {
            groups.push(FaultGroup::new(cell, row, by, way, tells_majors, names));
            nameless += u64::from(names.take_failed());
        }
        self.lost(SYMBOLS_FAILED, nameless);
        let mut lost = self.counters.losses.since(&self.counters_before.losses);
        lost.add(GROUP_TABLE_FULL, self.table.full());
        lost.add(MAJOR_UNPLACED, self.table.major_full());
        if last {
            lost.add(STACK_TABLE_FULL, self.names.stacks_lost());
        }
        let losses = lost.field(LossOutput::Losses);
        self.until_ns = now;
        let (head, interval) = self.run.interval("pagefault_summary", now, last)?;
        Ok(Summary {
            head,
            interval,
            attach: way.word(),
            by: by_name(by),
            groups,
            omitted,
            faults: Faults {
                matched: self.table.count() + losses.values().sum::<u64>(),
                filtered: self.counters.filtered - self.counters_before.filtered,
                major: tells_majors.then_some(self.counters.major - self.counters_before.major),
            },
            losses,
            sample_losses: lost.field(LossOutput::SampleLosses),
        })
    }

    /// The summary was written: another interval begins where it ended.
    pub(crate) fn begin(&mut self) {
        self.matched_before += self.table.count();
        self.full_before += self.table.full();
        self.run.commit(self.until_ns);
        self.table.begin();
        self.counters_before = self.counters;
    }

    /// Draws all stacks since the start.
    pub(super) fn draw(&mut self, to: File, path: &Path) -> Result<()> {
        flame::draw(to, path, &self.table, &mut self.names)
    }

    /// Counts what user space has lost itself.
    pub(super) fn lost(&mut self, reason: &'static str, count: u64) {
        self.own_losses.add(reason, count);
        self.counters.losses.add(reason, count);
    }

    /// What was lost since the start.
    pub(crate) fn losses(&self) -> Losses {
        self.counters.losses.with(GROUP_TABLE_FULL, self.full_before + self.table.full())
    }

    /// Was anything lost that counts for `--strict`?
    pub(crate) fn lost_any(&self) -> bool {
        self.losses().lost_any()
    }

    /// The counters in one line.
    pub(crate) fn tally(&self) -> String {
        let full = self.losses().get(GROUP_TABLE_FULL);
        format!(
            "{} page faults matched, {} of them in no group, {} filtered out in the kernel; {} records; lost: {}",
            self.matched_before + self.table.count() + full,
            full,
            self.counters.filtered,
            self.counters.events,
            self.counters.losses.line()
        )
    }
}

impl Ledger for Collector {
    type Look = Look;
    type Summary = Summary;

    fn look(&mut self, last: bool) -> Result<Look> {
        if last {
            self.detach();
        }
        let counts = self.drain(|_| Ok(()))?;
        let mut look = Look { faults: HashMap::new(), majors: HashMap::new(), last };
        for (key, count) in &counts.faults {
            *look.faults.entry(self.labels(key)).or_default() += count;
        }
        for (key, count) in &counts.majors {
            *look.majors.entry(ProcessLabels { comm: self.comm(key) }).or_default() += count;
        }
        Ok(look)
    }

    fn tell(&mut self, look: &Look) -> Result<Summary> {
        self.summary(look.last)
    }

    fn commit(&mut self, _look: Look) -> Result<()> {
        self.begin();
        Ok(())
    }
}

impl AsFd for Collector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
