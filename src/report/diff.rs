//! Compares two merges. Their times and numbers of hosts differ, so that rates are compared: events per hour of one host.
//! Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bug::Key;
use super::record::{By, Merged, Row, Selection, Totals};
use crate::host;
use crate::output::Timestamp;
use crate::record::Head;
use crate::record::crash::{Disposition, Frame};

/// A rate has changed if it is so many times the other one.
pub(super) const FACTOR: f64 = 1.5;
/// Fewer events than this on the side with the higher rate count as chance.
pub(super) const EVENTS: u64 = 3;

/// What changed. Fields as in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Diff {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The totals of the first file.
    pub before: Totals,
    /// The totals of the second file.
    pub after: Totals,
    /// The dispositions that are compared.
    pub selected: Vec<Disposition>,
    /// What makes two groups one row.
    pub by: By,
    /// How many groups had events in both, changed or not.
    pub in_both: usize,
    /// Groups with events only after, the highest rate first.
    pub new: Vec<Change>,
    /// Groups with events only before, the highest rate first.
    pub gone: Vec<Change>,
    /// Groups whose rate after is at least [`FACTOR`] times the one before, with at least [`EVENTS`] after; most additional events an
    /// hour first.
    pub worse: Vec<Change>,
    /// Groups whose rate before is at least [`FACTOR`] times the one after, with at least [`EVENTS`] before.
    pub better: Vec<Change>,
    /// How many rows of each list the text shows.
    #[serde(skip)]
    pub text_rows: usize,
}

/// One bug, before and after.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Change {
    /// This and the next ones up to `exes` are as in the report's rows: those of after, or of before if the bug is gone.
    pub family: Option<String>,
    pub signature: Option<String>,
    /// `SIGSEGV`.
    pub signal: String,
    /// Its code.
    pub code: Option<String>,
    /// The disposition of most events.
    pub disposition: Disposition,
    /// Names of the processes.
    pub comms: Vec<String>,
    /// Paths of the executables.
    pub exes: Vec<String>,
    /// The first function that says something.
    pub place: String,
    /// What libc said before an abort.
    pub abort_message: Option<String>,
    /// The likely cause.
    pub diagnosis: Option<String>,
    /// The rate in the first file.
    pub before: Rate,
    /// The rate in the second file.
    pub after: Rate,
    /// After's rate divided by before's; `None` means that one of them is 0, or not known.
    pub factor: Option<f64>,
    /// How many events there would have been after, at before's rate. If it is low for a bug that is gone, the bug may still come.
    /// `None` means that no time was covered before.
    pub expected: Option<f64>,
    /// The innermost frames.
    pub frames: Vec<Frame>,
}

/// One side of a change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Rate {
    /// Events.
    pub count: u64,
    /// Hosts that had them.
    pub hosts: usize,
    /// Events in an hour of one host; `None` means that no time was covered.
    pub per_host_hour: Option<f64>,
}

impl Rate {
    fn of(row: Option<&Row>, totals: &Totals) -> Self {
        let (count, hosts) = row.map_or((0, 0), |row| (row.count, row.hosts));
        let covered = totals.host_hours > 0.0;
        Self { count, hosts, per_host_hour: covered.then(|| count as f64 / totals.host_hours) }
    }

    /// Is this so much more than `other` that it can't be chance?
    fn exceeds(self, other: Self) -> bool {
        match (self.per_host_hour, other.per_host_hour) {
            (Some(this), Some(other)) => self.count >= EVENTS && this >= FACTOR * other,
            _ => false,
        }
    }
}

impl Diff {
    /// Compares two merges.
    pub(super) fn new(before: Merged, after: Merged, selection: &Selection, text_rows: usize) -> Self {
        let Merged { totals: totals_before, rows: before, .. } = before;
        let Merged { totals: totals_after, rows: after, .. } = after;
        let (by, is_asked) = (selection.by, |row: &Row| row.is_asked);
        let mut old: BTreeMap<Key, Row> =
            before.into_iter().filter(is_asked).map(|row| (Key::of_row(by, &row), row)).collect();
        let (mut new, mut worse, mut better, mut in_both) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for row in after.into_iter().filter(is_asked) {
            let was = old.remove(&Key::of_row(by, &row));
            let rates = (Rate::of(was.as_ref(), &totals_before), Rate::of(Some(&row), &totals_after));
            in_both += usize::from(was.is_some());
            let list = match was {
                None => &mut new,
                Some(_) if rates.1.exceeds(rates.0) => &mut worse,
                Some(_) if rates.0.exceeds(rates.1) => &mut better,
                Some(_) => continue,
            };
            list.push(Change::new(row, rates, &totals_after));
        }
        let mut gone: Vec<Change> = old
            .into_values()
            .map(|row| {
                let rates = (Rate::of(Some(&row), &totals_before), Rate::of(None, &totals_after));
                Change::new(row, rates, &totals_after)
            })
            .collect();
        for list in [&mut new, &mut gone, &mut worse, &mut better] {
            list.sort_by(|a, b| b.size().total_cmp(&a.size()).then(b.events().cmp(&a.events())));
        }
        Self {
            head: Head::new("report_diff", Timestamp::now(), &host::name()),
            before: totals_before,
            after: totals_after,
            selected: selection.dispositions.clone(),
            by,
            in_both,
            new,
            gone,
            worse,
            better,
            text_rows,
        }
    }

    /// Keeps the first `rows` of each list.
    pub(crate) fn shorten(&mut self, rows: usize) {
        for list in [&mut self.new, &mut self.gone, &mut self.worse, &mut self.better] {
            list.truncate(rows);
        }
    }
}

impl Change {
    fn new(row: Row, (before, after): (Rate, Rate), totals_after: &Totals) -> Self {
        let factor = match (before.per_host_hour, after.per_host_hour) {
            (Some(before), Some(after)) if before > 0.0 && after > 0.0 => Some(after / before),
            _ => None,
        };
        Self {
            family: row.family,
            signature: row.signature,
            place: row.place,
            abort_message: row.abort_message,
            diagnosis: row.diagnosis,
            signal: row.signal,
            code: row.code,
            disposition: row.disposition,
            comms: row.comms,
            exes: row.exes,
            before,
            after,
            factor,
            expected: before.per_host_hour.map(|rate| rate * totals_after.host_hours),
            frames: row.frames,
        }
    }

    /// How large the change is in either direction: events per hour of one host.
    fn size(&self) -> f64 {
        (self.after.per_host_hour.unwrap_or(0.0) - self.before.per_host_hour.unwrap_or(0.0)).abs()
    }

    /// Orders changes whose rates are unknown.
    fn events(&self) -> u64 {
        self.before.count.max(self.after.count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::merge::Merge;
    use super::super::merge::tests::{add, group, selection, summary};
    use super::*;
    use crate::record::summary::{Group, Summary};

    fn merged(summaries: Vec<Summary>) -> Merged {
        only(summaries, None)
    }

    fn only(summaries: Vec<Summary>, name: Option<&str>) -> Merged {
        let mut merge = Merge::new(&selection(By::Family, &[Disposition::Fatal]));
        for summary in &summaries {
            add(&mut merge, summary);
        }
        merge.finish(name)
    }

    /// One hour of one host before, two hours of one host after.
    fn diff(before: &[(&str, u64)], after: &[(&str, u64)]) -> Diff {
        let groups = |list: &[(&str, u64)]| list.iter().map(|(signature, count)| group(signature, *count)).collect();
        let before = merged(vec![summary("a", 3600, groups(before))]);
        let after = merged(vec![summary("a", 3600, groups(after)), summary("a", 7200, Vec::new())]);
        Diff::new(before, after, &Selection::default(), 0)
    }

    fn names(list: &[Change]) -> Vec<&str> {
        list.iter().filter_map(|change| change.signature.as_deref()).collect()
    }

    #[test]
    fn rates_are_compared_not_counts() {
        let diff = diff(&[("same", 10), ("worse", 10), ("better", 10)], &[("same", 20), ("worse", 30), ("better", 10)]);
        assert_eq!((names(&diff.worse), names(&diff.better), diff.in_both), (vec!["worse"], vec!["better"], 3));
        let worse = &diff.worse[0];
        assert_eq!((worse.before.per_host_hour, worse.after.per_host_hour), (Some(10.0), Some(15.0)));
        assert_eq!((worse.factor, worse.expected), (Some(1.5), Some(20.0)));
        assert_eq!(diff.better[0].factor, Some(0.5));
    }

    #[test]
    fn new_and_gone_are_where_one_side_has_no_events() {
        let diff = diff(&[("gone", 1), ("rarely", 0)], &[("new", 1), ("often", 8), ("gone", 0)]);
        assert_eq!((names(&diff.new), names(&diff.gone)), (vec!["often", "new"], vec!["gone"]));
        assert_eq!(diff.new[0].before, Rate { count: 0, hosts: 0, per_host_hour: Some(0.0) });
        assert_eq!((diff.new[0].factor, diff.gone[0].factor), (None, None));
        assert_eq!((diff.new[0].expected, diff.gone[0].expected), (Some(0.0), Some(2.0)));
        assert_eq!(diff.in_both, 0);
    }

    #[test]
    fn few_events_are_chance() {
        let two_at_most = diff(&[("up", 0), ("down", 2)], &[("up", 2), ("down", 1)]);
        assert!(two_at_most.better.is_empty() && two_at_most.worse.is_empty());
        let after = merged(vec![summary("a", 3600, vec![group("up", 2), group("three", 3)])]);
        let before = merged(vec![summary("a", 3600, vec![group("up", 1), group("three", 1)])]);
        assert_eq!(names(&Diff::new(before, after, &Selection::default(), 0).worse), ["three"]);
    }

    #[test]
    fn the_largest_change_is_first() {
        let diff = diff(&[("a", 1), ("b", 100)], &[("a", 20), ("b", 400)]);
        assert_eq!(names(&diff.worse), ["b", "a"], "100 more an hour before 9 more");
    }

    #[test]
    fn without_time_there_is_no_rate() {
        let mut still = summary("a", 3600, vec![group("1", 5), group("2", 5)]);
        still.interval.interval_seconds = 0.0;
        let after = merged(vec![summary("a", 3600, vec![group("1", 500), group("3", 1)])]);
        let diff = Diff::new(merged(vec![still]), after, &Selection::default(), 0);
        assert!(diff.worse.is_empty() && diff.better.is_empty());
        assert_eq!((names(&diff.new), names(&diff.gone), diff.in_both), (vec!["3"], vec!["2"], 1));
        assert_eq!((diff.gone[0].before.per_host_hour, diff.gone[0].expected), (None, None));
    }

    #[test]
    fn one_signature_only() {
        let before = only(vec![summary("a", 3600, vec![group("1", 5), group("2", 5)])], Some("2"));
        let diff = Diff::new(before, merged(Vec::new()), &Selection::default(), 0);
        assert_eq!(names(&diff.gone), ["2"]);
    }

    #[test]
    fn unsigned_groups_meet_again() {
        let unsigned = || summary("a", 3600, vec![Group { signature: None, ..group("", 4) }]);
        let diff = Diff::new(merged(vec![unsigned()]), merged(vec![unsigned()]), &Selection::default(), 0);
        assert_eq!((diff.in_both, diff.new.len(), diff.gone.len()), (1, 0, 0));
    }

    #[test]
    fn a_rebuild_makes_nothing_new() {
        let build = |signature: &str, build: &str| Group {
            family: Some("f".to_owned()),
            build_id: Some(build.to_owned()),
            ..group(signature, 4)
        };
        let of = |one: Group| summary("a", 3600, vec![one]);
        let diff = |before: Summary, after: Summary, by: By| {
            let selection = Selection { by, ..Selection::default() };
            let merged = |summary: Summary| {
                let mut merge = Merge::new(&Selection { dispositions: vec![Disposition::Fatal], ..selection.clone() });
                add(&mut merge, &summary);
                merge.finish(None)
            };
            let diff = Diff::new(merged(before), merged(after), &selection, 0);
            (diff.in_both, diff.new.len(), diff.gone.len())
        };
        assert_eq!(diff(of(build("old", "aa")), of(build("new", "bb")), By::Family), (1, 0, 0));
        assert_eq!(diff(of(build("old", "aa")), of(build("new", "bb")), By::Signature), (0, 1, 1));
        let other = Group { family: Some("g".to_owned()), ..build("new", "bb") };
        assert_eq!(diff(of(build("old", "aa")), of(other), By::Family), (0, 1, 1), "another bug is another one");
    }
}
