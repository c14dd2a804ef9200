//! Merges many summaries into one sum for each bug. Pure: it reads no file and prints nothing.
//!
//! It holds a row for each bug, a number for each host in it, and 8 bytes for each summary, by which a duplicate is found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::bug::{Bug, Key, add_to};
use super::record::{Row, Totals};
use crate::output::Timestamp;
use crate::record::crash::Disposition;
use crate::record::summary::{Deliveries, Group, Summary};

/// How many rows there are at most; events of groups that find no row are counted together.
const ROWS: usize = 1 << 16;

/// What became of one summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the sums.
    Merged,
    /// It is in the sums, but its own don't add up.
    Unbalanced,
    /// It was merged before.
    Duplicate,
}

/// One run of faultline on one host: its summaries differ in their time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Run {
    host: String,
    boot_id: Option<String>,
    since: i64,
}

/// The sums so far.
#[derive(Debug)]
pub(super) struct Merge {
    selected: Vec<Disposition>,
    seen: HashMap<Run, HashSet<i64>>,
    hosts: HashMap<String, u32>,
    bugs: BTreeMap<Key, Bug>,
    totals: Totals,
}

impl Merge {
    /// Without summaries yet. Groups of the `selected` dispositions get rows; totals are of all groups.
    pub(super) fn new(selected: &[Disposition]) -> Self {
        Self {
            selected: selected.to_vec(),
            seen: HashMap::new(),
            hosts: HashMap::new(),
            bugs: BTreeMap::new(),
            totals: Totals {
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
                adds_up: true,
            },
        }
    }

    /// Counts a line that could not be read.
    pub(super) fn damaged(&mut self) {
        self.totals.damaged += 1;
    }

    /// Adds one summary, unless it was merged before.
    pub(super) fn add(&mut self, summary: Summary) -> Outcome {
        let Summary { head, interval, .. } = &summary;
        let run = Run { host: head.host.clone(), boot_id: interval.boot_id.clone(), since: micros(interval.since) };
        if !self.seen.entry(run).or_default().insert(micros(head.timestamp)) {
            self.totals.duplicates += 1;
            return Outcome::Duplicate;
        }
        self.total(&summary);
        let balanced = summary.adds_up();
        self.totals.adds_up &= balanced;
        let next = self.hosts.len() as u32;
        let host = *self.hosts.entry(summary.head.host).or_insert(next);
        for group in summary.groups {
            add_to(self.totals.dispositions.entry(group.disposition).or_default(), group.count);
            if self.selected.contains(&group.disposition) {
                self.group(host, group);
            }
        }
        if balanced { Outcome::Merged } else { Outcome::Unbalanced }
    }

    fn total(&mut self, summary: &Summary) {
        let totals = &mut self.totals;
        totals.summaries += 1;
        let (ended, seconds) = (summary.head.timestamp, summary.interval.interval_seconds);
        totals.host_hours += seconds / 3600.0;
        let began = Timestamp::from_unix_ns(ended.unix_ns() - (seconds * 1e9) as i128).unwrap_or(ended);
        totals.from = Some(totals.from.map_or(began, |from| from.min(began)));
        totals.to = totals.to.max(Some(ended));
        add_to(&mut totals.deliveries.matched, summary.deliveries.matched);
        add_to(&mut totals.deliveries.filtered, summary.deliveries.filtered);
        for (sums, losses) in
            [(&mut totals.losses, &summary.losses), (&mut totals.sample_losses, &summary.sample_losses)]
        {
            for (reason, &count) in losses {
                add_to(sums.entry(reason.clone()).or_default(), count);
            }
        }
    }

    fn group(&mut self, host: u32, group: Group) {
        let key = Key::of(&group);
        if let Some(bug) = self.bugs.get_mut(&key) {
            bug.add(host, group);
        } else if self.bugs.len() < ROWS {
            let mut bug = Bug::new(&group);
            bug.add(host, group);
            self.bugs.insert(key, bug);
        } else {
            add_to(&mut self.totals.not_ranked, group.count);
        }
    }

    /// The totals, and the rows of all bugs that had events, most frequent first.
    pub(super) fn finish(mut self) -> (Totals, Vec<Row>) {
        self.totals.hosts = self.hosts.len();
        let names: HashMap<u32, String> = self.hosts.into_iter().map(|(name, host)| (host, name)).collect();
        let mut rows: Vec<Row> =
            self.bugs.into_values().filter(|bug| !bug.is_empty()).map(|bug| bug.row(&names)).collect();
        // The sort is stable: equal rows stay in the order of their keys.
        rows.sort_by_key(|row| (Reverse(row.count), Reverse(row.hosts)));
        (self.totals, rows)
    }
}

/// Microseconds since 1970, the precision of the JSON.
fn micros(moment: Timestamp) -> i64 {
    (moment.unix_ns() / 1000) as i64
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::bug::{BUILDS, NAMES};
    use super::*;
    use crate::record::crash::Frame;
    use crate::record::{Head, Interval};

    /// A second of the first minutes of 2026.
    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_ns((1_767_225_600 + i128::from(second)) * 1_000_000_000).unwrap()
    }

    pub(crate) fn frame(symbol: Option<&str>) -> Frame {
        Frame {
            symbol: symbol.map(str::to_owned),
            module: Some("/usr/bin/myapp".to_owned()),
            build_id: Some("aa".to_owned()),
            ..Frame::default()
        }
    }

    pub(crate) fn group(signature: &str, count: u64) -> Group {
        Group {
            signature: Some(signature.to_owned()),
            signal: "SIGSEGV".to_owned(),
            code: Some("SEGV_MAPERR".to_owned()),
            disposition: Disposition::Fatal,
            comm: "myapp".to_owned(),
            uid: None,
            exe: Some("/usr/bin/myapp".to_owned()),
            build_id: Some("aa".to_owned()),
            count,
            total: 1000,
            first_seen: at(10),
            last_seen: at(20),
            last_pid: 1,
            frames: Vec::new(),
            cpus: BTreeMap::new(),
        }
    }

    /// One hour that adds up and ends at `second`.
    pub(crate) fn summary(host: &str, second: i64, groups: Vec<Group>) -> Summary {
        Summary {
            head: Head::new(Summary::KIND, at(second), host),
            interval: Interval {
                since: at(0),
                interval_seconds: 3600.0,
                kernel: "6.18".to_owned(),
                boot_id: Some("boot".to_owned()),
                last: false,
            },
            deliveries: Deliveries { matched: groups.iter().map(|group| group.count).sum::<u64>() + 2, filtered: 5 },
            groups,
            losses: BTreeMap::from([("group_table_full".to_owned(), 2)]),
            sample_losses: BTreeMap::from([("sample_budget".to_owned(), 3)]),
        }
    }

    fn merge(summaries: Vec<Summary>) -> (Totals, Vec<Row>) {
        let mut merge = Merge::new(&[Disposition::Fatal, Disposition::Caught]);
        for summary in summaries {
            merge.add(summary);
        }
        merge.finish()
    }

    fn counts(rows: &[Row]) -> Vec<(Option<&str>, u64)> {
        rows.iter().map(|row| (row.signature.as_deref(), row.count)).collect()
    }

    #[test]
    fn intervals_are_added_and_the_most_frequent_is_first() {
        let (totals, rows) = merge(vec![
            summary("a", 60, vec![group("1", 2), group("2", 1)]),
            summary("a", 120, vec![group("1", 1)]),
            summary("b", 60, vec![group("2", 7)]),
        ]);
        assert_eq!(counts(&rows), [(Some("2"), 8), (Some("1"), 3)], "never `total`");
        assert_eq!((rows[0].hosts, rows[1].hosts), (2, 1));
        assert_eq!(rows[0].host_names, ["b", "a"], "those with the most first");
        assert_eq!((totals.summaries, totals.hosts, totals.host_hours), (3, 2, 3.0));
        assert_eq!(totals.deliveries, Deliveries { matched: 17, filtered: 15 });
        assert_eq!((totals.losses["group_table_full"], totals.sample_losses["sample_budget"]), (6, 9));
        assert_eq!(totals.dispositions.values().sum::<u64>() + 6, 17, "matched is counted and lost");
        assert_eq!((totals.from, totals.to), (Some(at(60 - 3600)), Some(at(120))));
        assert!(totals.adds_up);
    }

    #[test]
    fn the_same_summary_counts_once() {
        let mut merge = Merge::new(&[Disposition::Fatal]);
        let one = summary("a", 60, vec![group("1", 2)]);
        assert_eq!(merge.add(one.clone()), Outcome::Merged);
        assert_eq!(merge.add(one.clone()), Outcome::Duplicate);
        for other in [
            Summary { head: Head { host: "b".to_owned(), ..one.head.clone() }, ..one.clone() },
            Summary { interval: Interval { boot_id: None, ..one.interval.clone() }, ..one.clone() },
            Summary { interval: Interval { since: at(1), ..one.interval.clone() }, ..one.clone() },
            Summary { head: Head { timestamp: at(61), ..one.head.clone() }, ..one },
        ] {
            assert_eq!(merge.add(other), Outcome::Merged, "another time, host, boot or run");
        }
        let (totals, rows) = merge.finish();
        assert_eq!((totals.summaries, totals.duplicates, rows[0].count), (5, 1, 10));
        assert_eq!(totals.host_hours, 5.0, "a duplicate covers nothing");
    }

    #[test]
    fn a_group_without_events_adds_nothing_but_its_name() {
        let nameless = Group { exe: None, build_id: None, ..group("1", 3) };
        let last = Group { count: 0, frames: vec![frame(Some("main"))], first_seen: at(5), ..group("1", 0) };
        let mut ended = summary("b", 90, vec![last, group("2", 0)]);
        ended.interval.last = true;
        let (_, rows) = merge(vec![summary("a", 60, vec![nameless]), ended]);
        assert_eq!(counts(&rows), [(Some("1"), 3)], "no row without events");
        assert_eq!((rows[0].hosts, rows[0].host_names.join(" ")), (1, "a".to_owned()));
        assert_eq!(rows[0].builds, BTreeMap::from([("unknown".to_owned(), 3)]));
        assert_eq!(rows[0].exes, ["/usr/bin/myapp"]);
        assert_eq!(rows[0].first_seen, at(5));
        assert_eq!(rows[0].frames[0].symbol.as_deref(), Some("main"));
    }

    #[test]
    fn what_does_not_add_up_is_told() {
        let mut merge = Merge::new(&[Disposition::Fatal]);
        let wrong = Summary { deliveries: Deliveries::default(), ..summary("a", 60, vec![group("1", 2)]) };
        assert_eq!(merge.add(wrong), Outcome::Unbalanced);
        let huge = summary("a", 90, vec![group("1", 2)]);
        assert_eq!(
            merge.add(Summary { groups: vec![group("1", u64::MAX), group("2", 3)], ..huge }),
            Outcome::Unbalanced
        );
        let (totals, rows) = merge.finish();
        assert!(!totals.adds_up);
        assert_eq!(rows[0].count, u64::MAX, "a sum doesn't wrap around");
    }

    #[test]
    fn dispositions_are_selected_and_the_totals_have_all() {
        let handled = Group { disposition: Disposition::Handled, ..group("1", 100) };
        let caught = Group { disposition: Disposition::Caught, ..group("1", 2) };
        let (totals, rows) = merge(vec![summary("a", 60, vec![group("1", 1), handled, caught])]);
        assert_eq!(counts(&rows), [(Some("1"), 3)]);
        assert_eq!(rows[0].disposition, Disposition::Caught, "of most of them");
        assert_eq!(rows[0].dispositions, BTreeMap::from([(Disposition::Fatal, 1), (Disposition::Caught, 2)]));
        assert_eq!(totals.dispositions[&Disposition::Handled], 100);
        assert_eq!(totals.dispositions[&Disposition::Ignored], 0, "zeros are shown");
    }

    #[test]
    fn without_a_signature_all_that_is_known_must_be_the_same() {
        let unsigned = Group { signature: None, ..group("", 1) };
        let (_, rows) = merge(vec![
            summary("a", 60, vec![unsigned.clone(), Group { comm: "other".to_owned(), ..unsigned.clone() }]),
            summary(
                "b",
                60,
                vec![
                    unsigned.clone(),
                    Group { exe: None, ..unsigned.clone() },
                    Group { code: None, ..unsigned.clone() },
                    Group { disposition: Disposition::Caught, ..unsigned },
                ],
            ),
        ]);
        assert_eq!(rows.iter().map(|row| row.count).collect::<Vec<_>>(), [2, 1, 1, 1, 1]);
    }

    #[test]
    fn frames_with_names_are_better() {
        let with = |symbols: &[Option<&str>]| Group {
            frames: symbols.iter().map(|symbol| frame(*symbol)).collect(),
            ..group("1", 1)
        };
        let (_, rows) = merge(vec![
            summary("a", 60, vec![with(&[]), with(&[None])]),
            summary("b", 60, vec![with(&[None, Some("first")]), with(&[Some("second")])]),
        ]);
        assert_eq!(rows[0].frames.len(), 2);
    }

    #[test]
    fn names_and_builds_are_capped_and_add_up() {
        let groups = (0..40).map(|number| Group {
            comm: format!("c{number:02}"),
            exe: Some(format!("/e{number:02}")),
            build_id: (number != 0).then(|| format!("b{number:02}")),
            ..group("1", 100 - number)
        });
        let (_, rows) = merge(vec![summary("a", 60, groups.collect())]);
        let row = &rows[0];
        assert_eq!((row.comms.len(), row.exes.len(), row.comms[0].as_str()), (NAMES, NAMES, "c00"));
        assert_eq!(row.builds.len(), BUILDS + 1);
        assert_eq!((row.builds["unknown"], row.builds["b15"]), (100, 85));
        assert_eq!(row.builds.values().sum::<u64>(), row.count);
    }

    #[test]
    fn without_room_events_are_counted_all_the_same() {
        let groups = (0..=ROWS as u64).map(|number| group(&number.to_string(), 2)).collect();
        let (totals, rows) = merge(vec![summary("a", 60, groups)]);
        assert_eq!((rows.len(), totals.not_ranked), (ROWS, 2));
    }

    #[test]
    fn equals_keep_one_order() {
        let there = merge(vec![summary("a", 60, vec![group("1", 2), group("2", 2)])]).1;
        let back = merge(vec![summary("a", 60, vec![group("2", 2), group("1", 2)])]).1;
        assert_eq!(counts(&there), counts(&back));
    }
}
