//! The counts of groups that have left the kernel's table: by executable, user, signal, code and family, and for a while by group, so
//! that a group that comes again goes on counting. Both are bounded.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;

use super::known::{self, Identity, Seen};
use super::turns;
use crate::probe::Group;
use crate::probe::abi::fl_group_key;
use crate::record::summary;
use crate::text;

/// What makes one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bug {
    executable: String,
    uid: u32,
    signal: u16,
    code: Option<i32>,
    disposition: u32,
    family: Option<String>,
}

/// Groups of one bug, together.
#[derive(Clone, Debug)]
struct Row {
    key: fl_group_key,
    exe: Option<String>,
    total: u64,
    first_ns: u64,
    last_ns: u64,
    last_pid: u32,
}

/// What a group had counted when it left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// Its events.
    pub total: u64,
    /// The first one's time.
    pub first_ns: u64,
}

/// A group that may come again.
#[derive(Clone, Debug)]
struct Left {
    before: Before,
    bug: Bug,
    /// The number of its departure.
    departure: u64,
}

/// All groups that have left.
#[derive(Debug)]
pub(super) struct Departed {
    rows: HashMap<Bug, Row>,
    groups: HashMap<Vec<u8>, Left>,
    /// The keys of `groups` by the number of their departure.
    order: BTreeMap<u64, Vec<u8>>,
    departures: u64,
    /// How many entries each of the two may have.
    most: usize,
    total: u64,
}

impl Departed {
    /// Room for so many rows, and for so many groups.
    pub(super) fn new(most: usize) -> Self {
        Self { rows: HashMap::new(), groups: HashMap::new(), order: BTreeMap::new(), departures: 0, most, total: 0 }
    }

    /// The events of all that have left, also of those that came again.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// A group has left, and all its events have been reported. `identity` names it.
    pub(super) fn add(&mut self, group: &Group, identity: Option<&Identity>) {
        let key = group.facts.key;
        self.total += group.total();
        let exe = identity.and_then(|identity| identity.exe.clone());
        let bug = Bug {
            executable: exe.clone().unwrap_or_else(|| text::name(&key.comm)),
            uid: key.uid,
            signal: key.signal,
            code: (key.has_code != 0).then_some(key.si_code),
            disposition: key.disposition.0,
            family: identity.and_then(|identity| identity.family.clone()),
        };
        let before = Before { total: group.total() + group.before, first_ns: group.facts.first_ns };
        // A group without reported events has no sum.
        if before.total == 0 {
            return;
        }
        if self.rows.len() >= self.most && !self.rows.contains_key(&bug) {
            self.make_room();
        }
        let row = self.rows.entry(bug.clone()).or_insert_with(|| Row {
            key,
            exe,
            total: 0,
            first_ns: u64::MAX,
            last_ns: 0,
            last_pid: 0,
        });
        row.total += before.total;
        row.first_ns = row.first_ns.min(before.first_ns);
        if group.facts.last_ns >= row.last_ns {
            (row.last_ns, row.last_pid) = (group.facts.last_ns, group.facts.last_pid);
        }
        let bytes = key.to_bytes();
        self.departures += 1;
        let left = Left { before, bug, departure: self.departures };
        if let Some(earlier) = self.groups.insert(bytes.clone(), left) {
            self.order.remove(&earlier.departure);
        }
        self.order.insert(self.departures, bytes);
        while self.order.len() > self.most {
            if let Some((_, first)) = self.order.pop_first() {
                self.groups.remove(&first);
            }
        }
    }

    /// Has rows leave, of which only the sum is kept: users take turns in keeping their newest, so that nobody takes the room of all.
    fn make_room(&mut self) {
        let by_turn = turns::in_turn(&self.rows, |(bug, row)| (bug.uid, row.last_ns));
        // Several at once, as this looks at all of them.
        let leaving = by_turn.into_iter().skip(self.most - self.most.div_ceil(8)).map(|(bug, _)| bug.clone());
        for bug in leaving.collect::<Vec<_>>() {
            self.rows.remove(&bug);
        }
    }

    /// A group with this key has come again: returns what it had counted before, and forgets it.
    pub(super) fn take(&mut self, key: &fl_group_key) -> Option<Before> {
        let Left { before, bug, departure } = self.groups.remove(&key.to_bytes())?;
        self.order.remove(&departure);
        if let Some(row) = self.rows.get_mut(&bug) {
            row.total -= before.total.min(row.total);
            if row.total == 0 {
                self.rows.remove(&bug);
            }
        }
        Some(before)
    }

    /// The rows, as groups of a summary without events.
    pub(super) fn groups(&self) -> Result<Vec<summary::Group>> {
        let of = |(bug, row): (&Bug, &Row)| {
            let seen = Seen { total: row.total, first_ns: row.first_ns, last_ns: row.last_ns, last_pid: row.last_pid };
            let identity = Identity { family: bug.family.clone(), exe: row.exe.clone(), ..Identity::default() };
            known::told(&row.key, &seen, identity)
        };
        self.rows.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::probe::GroupId;
    use crate::probe::abi::fl_group;

    fn group(frames: u64, uid: u32, count: u64) -> Group {
        let key = fl_group_key { frames, uid, signal: 11, has_code: 1, si_code: 1, ..fl_group_key::default() };
        let facts = fl_group { key, first_ns: 10 * frames, last_ns: 10 * frames + 1, ..fl_group::default() };
        Group {
            id: GroupId { row: 0, serial: 1 },
            facts: facts.into(),
            counts: [count].into_iter().collect(),
            before: 0,
        }
    }

    fn totals(departed: &Departed) -> Vec<u64> {
        let mut totals: Vec<u64> = departed.groups().unwrap().iter().map(|group| group.total).collect();
        totals.sort_unstable();
        totals
    }

    #[test]
    fn groups_of_one_executable_signal_and_code_are_one_row() {
        let mut departed = Departed::new(10);
        departed.add(&group(1, 7, 3), None);
        departed.add(&group(2, 7, 4), None);
        departed.add(&group(1, 8, 5), None);
        assert_eq!(totals(&departed), [5, 7]);
        assert_eq!(departed.total(), 12);
    }

    #[test]
    fn a_group_that_comes_again_goes_on() {
        let mut departed = Departed::new(10);
        departed.add(&group(1, 7, 3), None);
        departed.add(&group(2, 7, 4), None);
        let before = departed.take(&group(1, 7, 0).facts.key).unwrap();
        assert_eq!((before.total, before.first_ns), (3, 10));
        assert_eq!(totals(&departed), [4]);
        assert!(departed.take(&group(1, 7, 0).facts.key).is_none(), "once");
        departed.add(&Group { before: 3, ..group(1, 7, 2) }, None);
        assert_eq!(totals(&departed), [9]);
        assert_eq!(departed.total(), 9, "each event once");
    }

    #[test]
    fn a_user_with_many_rows_keeps_another_in() {
        let mut departed = Departed::new(10);
        departed.add(&group(1, 7, 3), None);
        for signal in 0..100 {
            let mut many = group(2, 8, 1);
            Rc::make_mut(&mut many.facts).key.signal = signal;
            departed.add(&many, None);
        }
        assert!(totals(&departed).contains(&3) && totals(&departed).len() <= 10, "{:?}", totals(&departed));
    }

    #[test]
    fn both_tables_are_bounded() {
        let mut departed = Departed::new(10);
        for number in 0..100 {
            departed.add(&group(u64::from(number), number, 1), None);
        }
        assert_eq!((totals(&departed).len(), departed.total()), (10, 100));
        for number in 100..200 {
            departed.add(&group(number, 3, 1), None);
        }
        assert_eq!(departed.groups.len(), 10);
        assert!(
            departed.take(&group(1, 1, 0).facts.key).is_none() && departed.take(&group(199, 3, 0).facts.key).is_some()
        );
    }
}
