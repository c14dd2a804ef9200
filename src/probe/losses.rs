//! The losses of each command, declared once: reason, stage, whether it counts for `--strict`, where it is shown.
//!
//! The end line on standard error, the fields `losses` and `sample_losses` of the JSON, `--strict`, the metric
//! `faultline_events_dropped_total` and the tables in docs/ come from here.

use std::collections::BTreeMap;

use anyhow::Result;
use libbpf_rs::MapCore;

use super::counters;
use crate::say;

mod tables;

pub(crate) use tables::*;

/// An event that was counted, but in no group of its own.
pub(crate) const GROUP_TABLE_FULL: &str = "group_table_full";
/// An exit that may or may not have come from the handler of a fault: no record, and in no group.
pub(crate) const CAUGHT_UNDECIDED: &str = "caught_undecided";
/// A signal that is in no row of the table of pairs.
pub(crate) const PAIR_TABLE_FULL: &str = "pair_table_full";
/// A call that is in no row of the table of executable memory.
pub(crate) const EXEC_MEM_TABLE_FULL: &str = "alert_table_full";
/// A stack that found no room.
pub(crate) const STACK_TABLE_FULL: &str = "stack_table_full";
/// A major fault that is in no group's `major`.
pub(crate) const MAJOR_UNPLACED: &str = "major_unplaced";
/// A major fault that the kernel did not show to our program.
pub(crate) const MAJORS_MISSED: &str = "majors_missed";
/// Runs of our programs that the kernel skipped.
pub(crate) const RUNS_MISSED: &str = "runs_missed";
/// Runs at the exit of a process that the kernel skipped.
pub(crate) const EXITS_MISSED: &str = "exits_missed";
/// Runs at a fork that the kernel skipped.
pub(crate) const FORKS_MISSED: &str = "forks_missed";
/// A record whose files could not all be looked into.
pub(crate) const SYMBOLS_FAILED: &str = "symbols_failed";
/// A program or library that was run, and that there was no room to watch, or to copy when it had gone.
pub(crate) const FILES_NOT_KEPT: &str = "files_not_kept";
/// A process whose memory or mappings could not be read in time.
pub(crate) const READS_FAILED: &str = "reads_failed";
/// Something that could not be written.
pub(crate) const WRITE_FAILED: &str = "write_failed";
/// A record that the reader of a pipe, a socket or a terminal did not take in time.
pub(crate) const OUTPUT_BLOCKED: &str = "output_blocked";

/// The stage at which an event was lost: the label `stage` of `faultline_events_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The kernel did not show it to our program.
    Probe,
    /// It was counted, in no group of its own.
    Group,
    /// It was counted, and is in no record, or in a poorer one.
    Sample,
    /// The same of page faults, where the agent counts them.
    PageFault,
    /// The same of signals that were sent, where the agent counts them.
    Pair,
    /// The same of memory that becomes executable, where the agent counts it.
    ExecutableMemory,
    /// It could not be written.
    Output,
}

impl Stage {
    /// Its name in the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Group => "group",
            Self::Sample => "sample",
            Self::PageFault => "page_fault",
            Self::Pair => "pair",
            Self::ExecutableMemory => "executable_memory",
            Self::Output => "output",
        }
    }
}

/// Where a loss is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossOutput {
    /// The line of counters on standard error at the end of a run.
    EndLine,
    /// The field `losses` of a record.
    Losses,
    /// The field `sample_losses` of a record.
    SampleLosses,
    /// `faultline_events_dropped_total` of the agent.
    Metrics,
}

/// One reason for which something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The reason, by the name that it has everywhere.
    pub reason: &'static str,
    /// The stage at which the event was lost.
    pub stage: Stage,
    /// With `--strict` it makes the exit status 1: it was not asked for, and can't be made up for.
    pub is_strict: bool,
    /// Where its number is shown.
    pub shown: &'static [LossOutput],
    /// The line of `enum fl_counter` that counts it; `None` means that user space does.
    counter: Option<u32>,
    /// The loss of the crash probe beside this one that is part of its number.
    of_crashes: Option<&'static str>,
}

impl Loss {
    /// Is it shown there?
    pub fn is_shown(&self, place: LossOutput) -> bool {
        self.shown.contains(&place)
    }
}

/// All tables.
#[cfg(test)]
pub(crate) static TABLES: [&[Loss]; 6] = [&CRASH, &SIGNAL, &PAGEFAULT, &MEMORY, &EXECUTABLE_MEMORY, &CALL];

/// Every stage and reason that `faultline_events_dropped_total` can have.
#[cfg(test)]
pub(crate) fn dropped() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = TABLES.iter().flat_map(|table| table.iter()).filter(|loss| loss.is_shown(LossOutput::Metrics));
    all.map(|loss| (loss.stage.word(), loss.reason))
}

/// As many losses as one table has at most.
const LOSSES_MAX: usize = 16;

/// How much was lost of each line of a table, since the start or since another moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    table: &'static [Loss],
    /// `None` means that it can't be known here, and is shown nowhere.
    counts: [Option<u64>; LOSSES_MAX],
}

impl Losses {
    /// Nothing was lost.
    pub fn none(table: &'static [Loss]) -> Self {
        debug_assert!(table.len() <= LOSSES_MAX);
        Self { table, counts: [Some(0); LOSSES_MAX] }
    }

    /// What the kernel programs have counted in `map`.
    pub(super) fn read(table: &'static [Loss], map: &impl MapCore) -> Result<Self> {
        let mut losses = Self::none(table);
        for (loss, count) in table.iter().zip(&mut losses.counts) {
            if let Some(counter) = loss.counter {
                *count = Some(counters::sum(map, counter)?);
            }
        }
        Ok(losses)
    }

    fn place(&self, reason: &str) -> Option<usize> {
        let place = self.table.iter().position(|loss| loss.reason == reason);
        debug_assert!(place.is_some() || self.table.is_empty(), "no table has {reason}");
        place
    }

    /// How much was lost for this reason.
    pub fn get(&self, reason: &str) -> u64 {
        self.place(reason).and_then(|place| self.counts[place]).unwrap_or(0)
    }

    /// Counts more of it.
    pub fn add(&mut self, reason: &str, more: u64) {
        if let Some(place) = self.place(reason) {
            self.counts[place] = self.counts[place].map(|count| count + more);
        }
    }

    /// Counts so much of it.
    pub(super) fn set(&mut self, reason: &str, count: u64) {
        if let Some(place) = self.place(reason) {
            self.counts[place] = Some(count);
        }
    }

    /// The same losses with more of this one.
    pub fn with(mut self, reason: &str, more: u64) -> Self {
        self.add(reason, more);
        self
    }

    /// The same losses, with this one unknown.
    pub(super) fn without(mut self, reason: &str) -> Self {
        if let Some(place) = self.place(reason) {
            self.counts[place] = None;
        }
        self
    }

    /// The same losses with those of the crash probe beside this one.
    pub fn with_crashes(mut self, crashes: &Self) -> Self {
        for loss in self.table {
            if let Some(of_crashes) = loss.of_crashes {
                self.add(loss.reason, crashes.get(of_crashes));
            }
        }
        self
    }

    /// The same losses with those of another read of the same table.
    pub fn plus(mut self, other: &Self) -> Self {
        for (count, other) in self.counts.iter_mut().zip(other.counts) {
            *count = count.map(|count| count + other.unwrap_or(0));
        }
        self
    }

    /// What was lost since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (count, earlier) in since.counts.iter_mut().zip(earlier.counts) {
            *count = count.map(|count| count.saturating_sub(earlier.unwrap_or(0)));
        }
        since
    }

    fn all(&self) -> impl Iterator<Item = (&'static Loss, u64)> {
        self.table.iter().zip(self.counts).filter_map(|(loss, count)| Some((loss, count?)))
    }

    /// The reasons for which anything was lost.
    pub fn reasons(&self) -> impl Iterator<Item = &'static str> {
        self.all().filter(|(_, count)| *count != 0).map(|(loss, _)| loss.reason)
    }

    /// Was anything lost that counts for `--strict`?
    pub fn lost_any(&self) -> bool {
        self.all().any(|(loss, count)| loss.is_strict && count != 0)
    }

    /// What is shown there, in the table's order, zeros included.
    pub fn shown(&self, place: LossOutput) -> impl Iterator<Item = (&'static Loss, u64)> {
        self.all().filter(move |(loss, _)| loss.is_shown(place))
    }

    /// A field of a record: by reason, zeros included.
    pub fn field(&self, place: LossOutput) -> BTreeMap<&'static str, u64> {
        self.shown(place).map(|(loss, count)| (loss.reason, count)).collect()
    }

    /// What the metrics have: stage, reason, count.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.shown(LossOutput::Metrics).map(|(loss, count)| (loss.stage.word(), loss.reason, count))
    }

    /// The end line's part: `sample_ring_full 0, runs_missed 2`. On a terminal without the zeros.
    pub fn line(&self) -> String {
        self.line_with(!say::is_terminal())
    }

    fn line_with(&self, zeros: bool) -> String {
        let shown = self.shown(LossOutput::EndLine).filter(|(_, count)| zeros || *count != 0);
        let parts: Vec<String> = shown.map(|(loss, count)| format!("{} {count}", loss.reason)).collect();
        if parts.is_empty() && !zeros { "nothing".to_owned() } else { parts.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The first table under `heading` whose second column says `--strict`: by reason, does it count?
    fn documented(file: &str, heading: &str) -> BTreeMap<String, bool> {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file)).unwrap();
        let (_, section) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{file}: no {heading}"));
        let mut rows =
            section.lines().skip_while(|line| !line.contains("| `--strict` |")).take_while(|line| !line.is_empty());
        assert!(
            rows.next().is_some() && rows.next().is_some_and(|line| line.starts_with("| ---")),
            "{file}: {heading}"
        );
        let mut all = BTreeMap::new();
        for row in rows {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let (reasons, is_strict) = (cells.next().unwrap(), cells.next().unwrap());
            assert!(["yes", "no"].contains(&is_strict), "{file}: {row}");
            for reason in reasons.split_whitespace() {
                let before = all.insert(reason.trim_matches('`').to_owned(), is_strict == "yes");
                assert_eq!(before, None, "{file}: {reason} is there twice");
            }
        }
        all
    }

    fn declared(tables: &[&'static [Loss]]) -> BTreeMap<String, bool> {
        tables.iter().flat_map(|table| table.iter()).map(|loss| (loss.reason.to_owned(), loss.is_strict)).collect()
    }

    #[test]
    fn the_docs_have_every_loss_and_no_other() {
        assert_eq!(documented("output.md", "## `\"type\": \"summary\"`"), declared(&[&CRASH]));
        assert_eq!(documented("output.md", "## `\"type\": \"signal_summary\"`"), declared(&[&SIGNAL]));
        assert_eq!(documented("output.md", "## `\"type\": \"pagefault_summary\"`"), declared(&[&PAGEFAULT]));
        let memory = documented("memory.md", "## What can be missed, and how it is counted");
        assert_eq!(memory, declared(&[&MEMORY, &EXECUTABLE_MEMORY]));
        assert_eq!(documented("call.md", "## What is kept, and for how long"), declared(&[&CALL]));
    }

    #[test]
    fn a_reason_is_declared_once_for_a_command_and_shown_somewhere() {
        for table in TABLES {
            let reasons: std::collections::BTreeSet<&str> = table.iter().map(|loss| loss.reason).collect();
            assert_eq!(reasons.len(), table.len());
            assert!(table.len() <= LOSSES_MAX);
            assert!(table.iter().all(|loss| !loss.shown.is_empty()));
        }
    }

    #[test]
    fn what_was_asked_for_is_no_loss_and_what_cant_be_known_is_not_shown() {
        let none = Losses::none(&CRASH);
        assert!(!none.lost_any() && !none.with("sample_budget", 2).lost_any());
        assert!(none.with("stack_page_ring_full", 1).lost_any());
        assert_eq!(
            none.field(LossOutput::Losses),
            BTreeMap::from([(CAUGHT_UNDECIDED, 0), (GROUP_TABLE_FULL, 0)]),
            "zeros are shown"
        );
        let unknown = Losses::none(&PAGEFAULT).without(RUNS_MISSED).with(RUNS_MISSED, 1);
        assert!(!unknown.lost_any() && !unknown.line_with(true).contains(RUNS_MISSED), "{}", unknown.line_with(true));
        assert_eq!(unknown.line_with(false), "nothing");
        assert_eq!(unknown.line_with(true).split(", ").next(), Some("event_rate 0"));
    }

    #[test]
    fn crashes_count_in_the_losses_of_calls() {
        let crashes = Losses::none(&CRASH).with("stack_page_ring_full", 3).with(RUNS_MISSED, 1);
        let calls = Losses::none(&CALL).with(RUNS_MISSED, 2).with_crashes(&crashes);
        assert_eq!((calls.get("crash_stack_page_ring_full"), calls.get(RUNS_MISSED)), (3, 3));
        assert!(calls.lost_any());
    }
}
