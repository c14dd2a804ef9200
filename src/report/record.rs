//! The record of a report, which is the JSON and the source of the text. Fields as in docs/output.md.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::host;
use crate::output::Timestamp;
use crate::record::Head;
use crate::record::crash::{Disposition, Frame};
use crate::record::summary::Deliveries;

/// Which groups are ranked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Groups of these dispositions.
    pub dispositions: Vec<Disposition>,
    /// Only the group with this signature.
    pub signature: Option<String>,
    /// At most so many rows of each list; 0 means all. `None` means 20 in text, all in JSON.
    pub top: Option<usize>,
}

/// Everything that was read, whatever is selected from it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Totals {
    /// The beginning of the earliest interval; `None` means that nothing was read.
    pub from: Option<Timestamp>,
    /// The end of the latest interval.
    pub to: Option<Timestamp>,
    /// How many summaries were merged.
    pub summaries: u64,
    /// How many were skipped, because the same one had been merged before.
    pub duplicates: u64,
    /// Lines that could not be read.
    pub damaged: u64,
    /// How many hosts the summaries are from.
    pub hosts: usize,
    /// The sum of all intervals: rates are per hour of one host.
    pub host_hours: f64,
    /// The sum of the summaries' deliveries.
    pub deliveries: Deliveries,
    /// All events that were counted, by disposition, zeros included.
    pub dispositions: BTreeMap<Disposition, u64>,
    /// Events in no group, by reason.
    pub losses: BTreeMap<String, u64>,
    /// Samples that were lost, by reason.
    pub sample_losses: BTreeMap<String, u64>,
    /// Selected events whose groups found no room in the merge: they are in no row.
    pub not_ranked: u64,
    /// Did every summary add up?
    pub adds_up: bool,
}

impl Totals {
    /// Is something in the files missing here, or wrong in them?
    pub(crate) fn is_incomplete(&self) -> bool {
        self.damaged != 0 || self.not_ranked != 0 || !self.adds_up
    }
}

/// One bug, on all hosts together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// `None` means that neither a sample nor a stack could be had on any host.
    pub signature: Option<String>,
    /// `SIGSEGV`.
    pub signal: String,
    /// `SEGV_MAPERR`; `None` means that the kernel kept no siginfo.
    pub code: Option<String>,
    /// The disposition of most events.
    pub disposition: Disposition,
    /// How many events had each disposition.
    pub dispositions: BTreeMap<Disposition, u64>,
    /// Names of the processes, most frequent first, at most [`super::bug::NAMES`].
    pub comms: Vec<String>,
    /// Paths of the executables, likewise.
    pub exes: Vec<String>,
    /// Events on all hosts.
    pub count: u64,
    /// How many hosts had events.
    pub hosts: usize,
    /// The hosts with the most events, at most [`super::bug::NAMES`].
    pub host_names: Vec<String>,
    /// The time of the first event that any host knows: it can lie before the first interval.
    pub first_seen: Timestamp,
    /// The time of the last event.
    pub last_seen: Timestamp,
    /// Counts by the executable's build id, with `unknown` for none and `other` for further ones.
    pub builds: BTreeMap<String, u64>,
    /// The innermost frames, from the first group that has symbols.
    pub frames: Vec<Frame>,
}

/// Summaries merged into one ranking.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// What was read.
    #[serde(flatten)]
    pub totals: Totals,
    /// The dispositions that are ranked.
    pub selected: Vec<Disposition>,
    /// All events of these dispositions: the whole that shares are of.
    pub ranked: u64,
    /// How many groups there are, shown or not.
    pub ranked_groups: usize,
    /// Most frequent first.
    pub groups: Vec<Row>,
    /// One group was asked for: the text shows all of its frames.
    #[serde(skip)]
    pub in_detail: bool,
}

impl Report {
    /// The selected part of the ranking. `default_top` is the number of rows if the selection has none.
    pub(crate) fn new(totals: Totals, rows: Vec<Row>, selection: &Selection, default_top: usize) -> Self {
        Self {
            head: Head::new("report", Timestamp::now(), &host::name()),
            selected: selection.dispositions.clone(),
            ranked: rows.iter().fold(totals.not_ranked, |sum, row| sum.saturating_add(row.count)),
            ranked_groups: rows.len(),
            totals,
            groups: rows
                .into_iter()
                .filter(|row| selection.wants(row.signature.as_deref()))
                .take(selection.limit(default_top))
                .collect(),
            in_detail: selection.signature.is_some(),
        }
    }
}

impl Selection {
    /// Is the row with this signature asked for?
    pub(crate) fn wants(&self, signature: Option<&str>) -> bool {
        self.signature.is_none() || signature == self.signature.as_deref()
    }

    /// The number of rows.
    pub(crate) fn limit(&self, default_top: usize) -> usize {
        match self.top.unwrap_or(default_top) {
            0 => usize::MAX,
            top => top,
        }
    }
}
