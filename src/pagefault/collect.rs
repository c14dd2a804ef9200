//! From the probe's tables to records: the reader's side, whoever writes them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;

use anyhow::Result;

use super::names::{Names, is_alive};
use super::record::{Fault, Faults, Group, Kind, Omitted, Summary, by_name};
use super::table::Table;
use super::{Options, flame, plan};
use crate::host;
use crate::output::{Format, SCHEMA, Timestamp, boottime_ns};
use crate::probe::abi::pagefault::{Sample, fl_fault_key};
use crate::probe::losses::{GROUP_TABLE_FULL, MAJOR_UNPLACED, STACK_TABLE_FULL};
use crate::probe::pagefault::{By, Counters, Probe};
use crate::probe::{Losses, Ring, Shown};
use crate::session::BATCH;
use crate::symbol::DebugFolders;

/// More batches than a full ring holds.
const LAST_BATCHES: usize = 1024;

/// How many groups the text shows without `--top`.
const TEXT_ROWS: usize = 20;

/// Reads an attached probe.
pub struct Collector {
    probe: Probe,
    ring: Ring<'static>,
    samples: Rc<RefCell<Vec<Sample>>>,
    by: By,
    /// How many groups are shown.
    rows: usize,
    table: Table,
    names: Names,
    host: String,
    kernel: String,
    boot_id: Option<String>,
    since_ns: u64,
    /// When the interval began, and when it ended that was told last.
    from_ns: u64,
    until_ns: u64,
    /// The counters at the last look, and when the interval began.
    counters: Counters,
    counters_before: Counters,
    /// Of all intervals that were told.
    matched_total: u64,
    full_total: u64,
}

/// Faults that differ by these only, since the last look: what metrics are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    /// The process's name; empty: not known.
    pub comm: String,
    /// `user`, `kernel`
    pub mode: &'static str,
    /// `read`, `write`, `execute`; empty: the hook doesn't tell.
    pub access: &'static str,
    /// `not_present`, `protection`; empty: the hook doesn't tell.
    pub cause: &'static str,
}

impl Collector {
    /// Begins to read `probe`.
    ///
    /// # Errors
    /// Where the ring can't be mapped.
    pub fn new(options: &Options, probe: Probe) -> Result<Self> {
        let samples = Rc::new(RefCell::new(Vec::with_capacity(BATCH)));
        let into = samples.clone();
        let ring = probe.ring(move |sample| into.borrow_mut().push(sample))?;
        let now = boottime_ns()?;
        let rows = if options.common.format == Format::Text { TEXT_ROWS } else { usize::MAX };
        Ok(Self {
            probe,
            ring,
            samples,
            by: options.by,
            rows: options.top.unwrap_or(rows),
            table: Table::default(),
            names: Names::new(DebugFolders::new(&options.debug_dirs)),
            host: host::name(),
            kernel: host::kernel().0,
            boot_id: host::boot_id(),
            since_ns: now,
            from_ns: now,
            until_ns: now,
            counters: Counters::default(),
            counters_before: Counters::default(),
            matched_total: 0,
            full_total: 0,
        })
    }

    /// Attaches a probe and begins to read it.
    ///
    /// # Errors
    /// What can't be watched: one line with the cure.
    pub fn start(options: &Options) -> Result<Self> {
        let probe = Probe::start(&plan(options))?;
        Self::new(options, probe)
    }

    /// The hooks in use, for the line that says so.
    pub fn attached(&self) -> &[String] {
        self.probe.attached()
    }

    /// Nothing is counted from now on.
    pub fn detach(&mut self) {
        self.probe.detach();
    }

    /// Takes one batch of samples and hands the events among them to `write`; returns how many there were.
    ///
    /// # Errors
    /// What `write` says, and where the probe can't be read.
    pub fn take(&mut self, mut write: impl FnMut(Fault) -> Result<()>) -> Result<usize> {
        let taken = self.ring.take(BATCH)?;
        let samples: Vec<Sample> = self.samples.borrow_mut().drain(..).collect();
        for sample in &samples {
            if let Sample::Mapping(mapping) = sample {
                self.names.learn_mapping(mapping)?;
            }
        }
        for sample in &samples {
            let Sample::Fault(fault) = sample else { continue };
            if self.by == By::Stack {
                self.names.ask(&self.probe, std::iter::empty(), std::iter::once(fault.key.place))?;
            }
            write(Fault::new(fault, self.by, self.probe.way(), &self.host, &mut self.names)?)?;
        }
        Ok(taken)
    }

    /// Moves what was counted from the kernel's table to ours, and learns what it stands for. Returns what was new, and the
    /// major ones among it.
    ///
    /// # Errors
    /// As [`Collector::take`].
    pub fn drain(&mut self, mut write: impl FnMut(Fault) -> Result<()>) -> Result<[HashMap<Labels, u64>; 2]> {
        let counts = self.probe.drain()?;
        for _ in 0..LAST_BATCHES {
            if self.take(&mut write)? < BATCH {
                break;
            }
        }
        let pids: HashSet<u32> = counts.faults.iter().map(|(key, _)| key.tgid).collect();
        let hashes: HashSet<u64> = match self.by {
            By::Stack => counts.faults.iter().map(|(key, _)| key.place).collect(),
            _ => HashSet::new(),
        };
        self.names.ask(&self.probe, pids.into_iter(), hashes.into_iter())?;
        self.table.add(&counts, is_alive, |pid| self.names.comm(pid));
        self.counters = self.probe.counters()?;
        Ok([self.labelled(&counts.faults), self.labelled(&counts.majors)])
    }

    fn labelled(&self, counts: &[(fl_fault_key, u64)]) -> HashMap<Labels, u64> {
        let mut sums = HashMap::new();
        for (key, count) in counts {
            let Kind { mode, access, cause, .. } = Kind::new(self.probe.way(), key.mode, key.error_code, 0);
            let comm = self.names.comm(key.tgid).unwrap_or_default();
            let labels = Labels { comm, mode, access: access.unwrap_or_default(), cause: cause.unwrap_or_default() };
            *sums.entry(labels).or_default() += count;
        }
        sums
    }

    /// What the interval that ends now has had. Call [`Collector::commit`] when it was written: else the next one has it, too.
    ///
    /// # Errors
    /// Where a time can't be told.
    pub fn summary(&mut self, last: bool) -> Result<Summary> {
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
        let groups: Vec<Group> =
            sorted[..rows].iter().map(|(cell, row)| Group::new(cell, row, by, way, tells_majors, names)).collect();
        let mut lost = self.counters.losses.since(&self.counters_before.losses);
        lost.add(GROUP_TABLE_FULL, self.table.full());
        lost.add(MAJOR_UNPLACED, self.table.major_full());
        if last {
            lost.add(STACK_TABLE_FULL, self.names.stacks_lost());
        }
        let losses = lost.field(Shown::Losses);
        self.until_ns = now;
        Ok(Summary {
            kind: "pagefault_summary",
            schema: SCHEMA,
            timestamp: Timestamp::from_boottime(now)?,
            host: self.host.clone(),
            since: Timestamp::from_boottime(self.since_ns)?,
            interval_seconds: now.saturating_sub(self.from_ns) as f64 / 1e9,
            kernel: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
            last,
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
            sample_losses: lost.field(Shown::SampleLosses),
        })
    }

    /// The summary was written: another interval begins where it ended.
    pub fn commit(&mut self, summary: &Summary) {
        self.matched_total += summary.faults.matched;
        self.full_total += summary.losses.values().sum::<u64>();
        self.from_ns = self.until_ns;
        self.table.begin();
        self.counters_before = self.counters;
    }

    /// Draws all stacks since the start.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub(super) fn draw(&mut self, to: File, path: &Path) -> Result<()> {
        flame::draw(to, path, &self.table, &mut self.names)
    }

    /// What was lost since the start, of faults as far as they were told.
    pub fn losses(&self) -> Losses {
        let in_kernel = self.counters.losses;
        let of_ours = self.full_total.saturating_sub(in_kernel.get(GROUP_TABLE_FULL));
        in_kernel.with(GROUP_TABLE_FULL, of_ours)
    }

    /// Was anything lost that counts for `--strict`?
    pub fn lost_any(&self) -> bool {
        self.losses().lost_any()
    }

    /// The counters in one line.
    pub fn tally(&self) -> String {
        format!(
            "{} page faults matched, {} of them in no group, {} filtered out in the kernel; {} records; lost: {}",
            self.matched_total,
            self.full_total,
            self.counters.filtered,
            self.counters.events,
            self.counters.losses.line()
        )
    }
}

impl AsFd for Collector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
