//! Reads what the signal probe has counted.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Probe;
use crate::probe::abi::signal::{fl_counter, fl_near_pair, fl_near_table, fl_pair, fl_pair_count};
use crate::probe::losses::{self, Losses};
use crate::probe::table::TypedTable as _;

const TABLE_OF_PAIRS: &str = "failed to read the table of pairs";

/// A row of the table of pairs.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Sender, target, signal and result.
    pub key: fl_pair,
    /// How often, since the start.
    pub count: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub first_ns: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub last_ns: u64,
}

/// [`fl_pair`] as what it holds: sender, target, signal, result, whether there is a sender.
pub(crate) type PairKey = ([i8; 16], [i8; 16], u8, u8, u8);

impl Pair {
    /// What distinguishes it.
    pub(crate) fn id(&self) -> PairKey {
        id(&self.key)
    }
}

fn id(key: &fl_pair) -> PairKey {
    (key.sender, key.target, key.signal, key.result, key.has_sender)
}

/// Tasks that began, ran another program, and ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TaskCounters {
    /// New processes.
    pub forks: u64,
    /// New threads.
    pub threads: u64,
    /// Processes that ran another program.
    pub execs: u64,
    /// Processes that ended.
    pub exits: u64,
    /// Threads that ended and left others behind.
    pub thread_exits: u64,
}

impl TaskCounters {
    /// What was added since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            forks: self.forks - earlier.forks,
            threads: self.threads - earlier.threads,
            execs: self.execs - earlier.execs,
            exits: self.exits - earlier.exits,
            thread_exits: self.thread_exits - earlier.thread_exits,
        }
    }
}

/// The counters of the kernel programs, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Watched signals of watched tasks.
    pub signals: u64,
    /// Watched signals that the filters left out.
    pub filtered: u64,
    /// Forks, execs and exits of watched tasks.
    pub tasks: TaskCounters,
    /// Samples that were sent to user space.
    pub records: u64,
    /// Signals and events that were not sent, not counted by pair, not watched or not seen.
    pub losses: Losses,
}

impl Probe {
    /// The counters since the start.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let count = |which: fl_counter| self.count(which.0);
        let near: u64 = self.near_pairs()?.iter().map(|row| row.counts.count).sum();
        Ok(Counters {
            signals: count(fl_counter::FL_SIGNALS)? + near,
            filtered: count(fl_counter::FL_FILTERED)?,
            tasks: TaskCounters {
                forks: count(fl_counter::FL_FORKS)?,
                threads: count(fl_counter::FL_THREADS)?,
                execs: count(fl_counter::FL_EXECS)?,
                exits: count(fl_counter::FL_EXITS)?,
                thread_exits: count(fl_counter::FL_THREAD_EXITS)?,
            },
            records: count(fl_counter::FL_RECORDS)?,
            losses: self.losses(&losses::SIGNAL)?,
        })
    }

    /// The rows of all processors that are found without a hash table.
    fn near_pairs(&self) -> Result<Vec<fl_near_pair>> {
        let tables: Vec<fl_near_table> = self.map("fl_near_pairs")?.values(&0u32).context(TABLE_OF_PAIRS)?;
        Ok(tables.into_iter().flat_map(|table| table.rows).collect())
    }

    /// The counts by sender, target, signal and result, since the start.
    pub(crate) fn pairs(&self) -> Result<Vec<Pair>> {
        let mut pairs = HashMap::new();
        // A pair that one processor has here, another may have in the other table.
        for row in self.near_pairs()?.iter().filter(|row| row.counts.count != 0) {
            add(&mut pairs, &row.key, &row.counts);
        }
        let map = self.map("fl_pairs")?;
        for key in map.all_keys::<fl_pair>() {
            let key = key.context(TABLE_OF_PAIRS)?;
            let rows: Vec<fl_pair_count> = map.values(&key).context(TABLE_OF_PAIRS)?;
            rows.iter().for_each(|counts| add(&mut pairs, &key, counts));
        }
        Ok(pairs.into_values().collect())
    }
}

/// Adds the counts of one processor.
fn add(pairs: &mut HashMap<PairKey, Pair>, key: &fl_pair, counts: &fl_pair_count) {
    let pair = pairs.entry(id(key)).or_insert(Pair { key: *key, count: 0, first_ns: 0, last_ns: 0 });
    pair.count += counts.count;
    pair.last_ns = pair.last_ns.max(counts.last_ns);
    pair.first_ns = match (pair.first_ns, counts.first_ns) {
        (0, first) | (first, 0) => first,
        (one, other) => one.min(other),
    };
}
