//! The record of a report, which is the JSON and the source of the text. Fields as in docs/output.md.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::host;
use crate::output::Timestamp;
use crate::record::Head;
use crate::record::crash::{Disposition, Frame};
use crate::record::summary::Deliveries;

/// What makes two groups one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// The bug in any build; where it isn't known, the signature.
    #[default]
    Family,
    /// The bug in one build.
    Signature,
}

/// Which groups are ranked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// What a row is.
    pub by: By,
    /// Groups of these dispositions.
    pub dispositions: Vec<Disposition>,
    /// Only the row of this family, or with this signature.
    pub signature: Option<String>,
    /// The most rows of each list; 0 means all. `None` means 20 in text, all in JSON.
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
    /// How many events a group without a row had at most; 0 means that there was room for all.
    pub missing_at_most: u64,
    /// Groups that refer to an earlier line of their file, which isn't there.
    pub unresolved: u64,
    /// Did every summary add up?
    pub adds_up: bool,
}

impl Default for Totals {
    /// Nothing was read.
    fn default() -> Self {
        Self {
            from: None,
            to: None,
            summaries: 0,
            duplicates: 0,
            damaged: 0,
            hosts: 0,
            host_hours: 0.0,
            deliveries: Deliveries::default(),
            dispositions: Disposition::ALL.map(|disposition| (disposition, 0)).into(),
            losses: BTreeMap::new(),
            sample_losses: BTreeMap::new(),
            not_ranked: 0,
            missing_at_most: 0,
            unresolved: 0,
            adds_up: true,
        }
    }
}

impl Totals {
    /// Is something in the files missing here, or wrong in them?
    pub(crate) fn is_incomplete(&self) -> bool {
        self.damaged != 0 || self.not_ranked != 0 || self.unresolved != 0 || !self.adds_up
    }
}

/// One bug, on all hosts together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The bug in any build; `None` means that no host knows names of it.
    pub family: Option<String>,
    /// The signature with the most events, if there are several (`signatures`). `None` means that no host had a sample or a stack.
    pub signature: Option<String>,
    /// The first function that says something, or what else is known of the place.
    pub place: String,
    /// What libc said before an abort, in the earliest record or group that has it or a diagnosis.
    pub abort_message: Option<String>,
    /// The sentence of that one's diagnosis.
    pub diagnosis: Option<String>,
    /// The split of a coarse count is not exact for one of its groups.
    pub estimated: bool,
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
    /// So many more it may have had while it had no row.
    pub missing_at_most: u64,
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
    /// The same by signature and build, the most frequent first, at most [`super::builds::BUILDS`].
    pub signatures: Vec<Build>,
    /// The innermost frames, from the first group that has symbols.
    pub frames: Vec<Frame>,
    /// It is the row that was asked for, or all were.
    #[serde(skip)]
    pub is_asked: bool,
}

/// A bug in one build.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Build {
    /// As in crash records.
    pub signature: Option<String>,
    /// The executable's.
    pub build_id: Option<String>,
    /// Events on all hosts.
    pub count: u64,
    /// The first one's time.
    pub first_seen: Timestamp,
    /// The last one's.
    pub last_seen: Timestamp,
}

/// A processor, or a host, on which more bugs strike than chance explains.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Suspect {
    /// The host.
    pub host: String,
    /// The processor; `None` means that the host as a whole is meant.
    pub cpu: Option<u32>,
    /// How many bugs strike there.
    pub bugs: u64,
    /// How many there are: bugs of the host, or all pairs of a bug and a host.
    pub of_bugs: u64,
    /// How many processors the host has, as far as is known.
    pub processors: u64,
    /// How many it would be at the most uneven load that is taken for healthy.
    pub expected: f64,
    /// The probability that a report of healthy hosts names anything like this.
    pub chance: f64,
}

/// What came of a merge.
#[derive(Debug)]
pub(super) struct Merged {
    /// Everything that was read.
    pub totals: Totals,
    /// The bugs that had events, most frequent first.
    pub rows: Vec<Row>,
    /// Processors and hosts on which too many bugs strike.
    pub suspects: Vec<Suspect>,
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
    /// What makes a row.
    pub by: By,
    /// Processors and hosts on which more bugs strike than chance explains, the least probable first.
    pub suspects: Vec<Suspect>,
    /// Most frequent first.
    pub groups: Vec<Row>,
    /// One group was asked for: the text shows all of its frames.
    #[serde(skip)]
    pub in_detail: bool,
}

impl Report {
    /// The selected part of the ranking. `default_top` is the number of rows if the selection has none.
    pub(super) fn new(merged: Merged, selection: &Selection, default_top: usize) -> Self {
        let Merged { totals, rows, suspects } = merged;
        Self {
            head: Head::new("report", Timestamp::now(), &host::name()),
            selected: selection.dispositions.clone(),
            ranked: rows.iter().fold(totals.not_ranked, |sum, row| sum.saturating_add(row.count)),
            ranked_groups: rows.len(),
            totals,
            by: selection.by,
            suspects,
            groups: rows.into_iter().filter(|row| row.is_asked).take(selection.limit(default_top)).collect(),
            in_detail: selection.signature.is_some(),
        }
    }
}

impl Selection {
    /// The number of rows.
    pub(crate) fn limit(&self, default_top: usize) -> usize {
        match self.top.unwrap_or(default_top) {
            0 => usize::MAX,
            top => top,
        }
    }
}
