//! Who sent what to whom, how often: the kernel's table of pairs, told every interval.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use super::decode::result_word;
use crate::host;
use crate::output::{Record, SCHEMA, Timestamp, boottime_ns, escape, lossy};
use crate::probe::Shown;
use crate::probe::abi::signal::fl_result;
use crate::probe::losses::PAIR_TABLE_FULL;
use crate::probe::signal::{Counters, Pair, Probe, TaskCounters};
use crate::siginfo::signal_name;
use crate::summary::Deliveries;

/// How many rows the text shows, most frequent first. JSON has all.
const TEXT_ROWS: usize = 50;

/// All pairs that had signals in one interval; the last one of a run has all there were. Fields as in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub struct SignalSummary {
    /// Always `signal_summary`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// See [`SCHEMA`].
    pub schema: u32,
    /// The interval's end.
    pub timestamp: Timestamp,
    /// The machine's name.
    pub host: String,
    /// When counting began: a later one means that faultline was started anew, and `total` with it.
    pub since: Timestamp,
    /// The interval's length, time asleep included.
    pub interval_seconds: f64,
    /// The kernel's release.
    pub kernel: String,
    /// /proc/sys/kernel/random/boot_id; None: the kernel doesn't tell.
    pub boot_id: Option<String>,
    /// Nothing follows: the run is over.
    #[serde(rename = "final")]
    pub last: bool,
    /// Most frequent first.
    pub pairs: Vec<PairRow>,
    /// What was sent in this interval.
    pub deliveries: Deliveries,
    /// Tasks that began and ended in this interval; None: not asked for.
    pub processes: Option<TaskCounters>,
    /// Signals in no pair, by reason: `deliveries.matched` is the sum of these and of all `pairs[].count`.
    pub losses: BTreeMap<&'static str, u64>,
}

/// One sender, one target, one signal, one result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PairRow {
    /// `SIGTERM`.
    pub signal: String,
    /// The sender's name; None: the kernel, on nobody's behalf.
    pub sender: Option<String>,
    /// The target's name.
    pub target: String,
    /// `delivered`, `ignored`, `already_pending`, `lost`; None: the hook doesn't tell.
    pub result: Option<&'static str>,
    /// In this interval.
    pub count: u64,
    /// Since `since`.
    pub total: u64,
    /// The first one's time.
    pub first_seen: Timestamp,
    /// The last one's, to the tick.
    pub last_seen: Timestamp,
}

type Key = (u8, u8, u8, [u8; 16], [u8; 16]);

/// What was told last.
pub struct PairLedger {
    host: String,
    kernel: String,
    boot_id: Option<String>,
    since: Timestamp,
    /// Tell what tasks did.
    processes: bool,
    told: HashMap<Key, u64>,
    counters: Counters,
    boottime_ns: u64,
}

/// One look at the kernel's numbers.
#[derive(Clone, Debug)]
pub struct PairLook {
    pairs: Vec<Pair>,
    counters: Counters,
    boottime_ns: u64,
}

fn key(pair: &Pair) -> Key {
    let bytes = |text: [std::ffi::c_char; 16]| text.map(|byte| byte as u8);
    (pair.key.signal, pair.key.result, pair.key.has_sender, bytes(pair.key.sender), bytes(pair.key.target))
}

impl PairLook {
    /// Looks now. The table is read anew only where the counters say that something came since `earlier`.
    ///
    /// # Errors
    /// Where a map or a clock can't be read.
    pub fn take(probe: &Probe, earlier: Option<&Self>) -> Result<Self> {
        let counters = probe.counters()?;
        let pairs = match earlier.filter(|earlier| earlier.counters.signals == counters.signals) {
            Some(earlier) => earlier.pairs.clone(),
            None => probe.pairs()?,
        };
        Ok(Self { counters, pairs, boottime_ns: boottime_ns()? })
    }

    /// All rows: signal, sender, target, result, count since the start.
    pub fn totals(&self) -> impl Iterator<Item = PairTotal> {
        self.pairs.iter().map(|pair| {
            let (signal, result, has_sender, sender, target) = key(pair);
            PairTotal {
                signal: signal_name(u32::from(signal)),
                sender: (has_sender != 0).then(|| lossy(&sender)),
                target: lossy(&target),
                result: result_word(fl_result(u32::from(result))),
                count: pair.count,
            }
        })
    }

    /// What was lost and left out.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// One row's number since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairTotal {
    /// `SIGTERM`.
    pub signal: String,
    /// As in [`PairRow`].
    pub sender: Option<String>,
    /// As in [`PairRow`].
    pub target: String,
    /// As in [`PairRow`].
    pub result: Option<&'static str>,
    /// Since the start.
    pub count: u64,
}

impl PairLedger {
    /// A ledger that begins now. `processes`: tell of forks, execs and exits, too.
    ///
    /// # Errors
    /// Where the clocks can't be read.
    pub fn new(processes: bool) -> Result<Self> {
        let boottime_ns = boottime_ns()?;
        Ok(Self {
            host: host::name(),
            kernel: host::kernel().0,
            boot_id: host::boot_id(),
            since: Timestamp::from_boottime(boottime_ns)?,
            processes,
            told: HashMap::new(),
            counters: Counters::default(),
            boottime_ns,
        })
    }

    /// What came since the last summary that was told. `last`: with all pairs there were.
    ///
    /// # Errors
    /// Where the clocks can't be read.
    pub fn summarize(&self, look: &PairLook, last: bool) -> Result<SignalSummary> {
        let mut pairs = Vec::new();
        for (pair, total) in look.pairs.iter().zip(look.totals()) {
            let count = pair.count.saturating_sub(self.told.get(&key(pair)).copied().unwrap_or(0));
            if count == 0 && !last {
                continue;
            }
            let PairTotal { signal, sender, target, result, count: total } = total;
            let (first_seen, last_seen) =
                (Timestamp::from_boottime(pair.first_ns)?, Timestamp::from_boottime(pair.last_ns)?);
            pairs.push(PairRow { signal, sender, target, result, count, total, first_seen, last_seen });
        }
        pairs.sort_by(|a, b| b.count.cmp(&a.count).then(b.total.cmp(&a.total)).then(a.target.cmp(&b.target)));
        let losses = look.counters.losses.since(&self.counters.losses);
        let counted: u64 = pairs.iter().map(|pair| pair.count).sum();
        let nanoseconds = look.boottime_ns.saturating_sub(self.boottime_ns);
        Ok(SignalSummary {
            kind: "signal_summary",
            schema: SCHEMA,
            timestamp: Timestamp::from_boottime(look.boottime_ns)?,
            host: self.host.clone(),
            since: self.since,
            interval_seconds: (nanoseconds / 1_000_000) as f64 / 1000.0,
            kernel: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
            last,
            pairs,
            // Not the kernel's counter, which has moved on while the table was read: the same look's sum.
            deliveries: Deliveries {
                matched: counted + losses.get(PAIR_TABLE_FULL),
                filtered: look.counters.filtered.saturating_sub(self.counters.filtered),
            },
            processes: self.processes.then(|| look.counters.tasks.since(&self.counters.tasks)),
            losses: losses.field(Shown::Losses),
        })
    }

    /// The summary of this look has reached its reader.
    pub fn commit(&mut self, look: &PairLook) {
        self.told = look.pairs.iter().map(|pair| (key(pair), pair.count)).collect();
        self.counters = look.counters;
        self.boottime_ns = look.boottime_ns;
    }
}

impl Record for SignalSummary {
    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write_text(&mut text);
        text
    }
}

impl SignalSummary {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        let what = if self.last { "LAST SUMMARY" } else { "SUMMARY" };
        writeln!(
            to,
            "[{}] {what} of {:.1} s on {}: {} signals between {} pairs, {} filtered out",
            self.timestamp.local_seconds(),
            self.interval_seconds,
            escape(&self.host),
            self.deliveries.matched,
            self.pairs.len(),
            self.deliveries.filtered
        )?;
        if !self.pairs.is_empty() {
            writeln!(
                to,
                "  {:>9} {:>9}  {:<11}  {:<15}  {:<15}  RESULT",
                "COUNT", "TOTAL", "SIGNAL", "SENDER", "TARGET"
            )?;
        }
        for pair in self.pairs.iter().take(TEXT_ROWS) {
            writeln!(
                to,
                "  {:>9} {:>9}  {:<11}  {:<15}  {:<15}  {}",
                pair.count,
                pair.total,
                pair.signal,
                pair.sender.as_deref().map_or_else(|| "(kernel)".to_owned(), escape),
                escape(&pair.target),
                pair.result.unwrap_or("-").replace('_', " ")
            )?;
        }
        if self.pairs.len() > TEXT_ROWS {
            writeln!(to, "  ... and {} pairs more: --format json has them", self.pairs.len() - TEXT_ROWS)?;
        }
        if let Some(tasks) = &self.processes {
            writeln!(
                to,
                "  Processes: {} forks, {} execs, {} exits; threads: {} new, {} ended",
                tasks.forks, tasks.execs, tasks.exits, tasks.threads, tasks.thread_exits
            )?;
        }
        let losses: Vec<String> = self.losses.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        writeln!(to, "  In no pair: {}", losses.join(", "))
    }
}
