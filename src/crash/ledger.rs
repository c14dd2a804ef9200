//! Keeps account between two reads of the kernel's groups: what was new, and the description of each group. Nothing here asks the kernel
//! or the files.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use anyhow::Result;

use super::counted::Counted;
use super::departed::{Before, Departed};
use super::known::{self, Identity, Known, Seen};
use crate::ledger::Run;
use crate::probe::losses::{CAUGHT_UNDECIDED, GROUP_TABLE_FULL};
use crate::probe::{Counters, Counts, Group, GroupId, LossOutput, Losses, SHARED, StackFrame};
use crate::record::summary::{self, Deliveries, Summary};

/// One read of the kernel's counters.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// All that is counted by group.
    pub groups: Counted,
    /// Everything else that is counted.
    pub counters: Counters,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boottime_ns: u64,
    /// The run is over.
    pub last: bool,
}

impl Look {
    /// Everything that was lost since the start.
    pub(super) fn losses(&self) -> Losses {
        let losses = self.counters.losses.with(GROUP_TABLE_FULL, self.groups.ungrouped);
        losses.with(CAUGHT_UNDECIDED, self.groups.undecided)
    }
}

/// What was reported last, and the descriptions.
pub(super) struct GroupLedger {
    run: Run,
    /// By group.
    known: HashMap<GroupId, Known>,
    committed: Baseline,
    /// The groups that have left the kernel's table.
    departed: Departed,
    /// What groups that are there had counted before they left and came again.
    returned: HashMap<GroupId, Before>,
}

/// The counts up to which everything was reported.
#[derive(Clone, Debug, Default)]
struct Baseline {
    /// The counts of the groups that have not departed.
    counts: HashMap<GroupId, Counts>,
    /// The groups of that look; `None` means that there was none.
    named: Option<Rc<[Group]>>,
    filtered: u64,
    losses: Losses,
}

impl Baseline {
    fn advance(&mut self, look: &Look) {
        if !self.has_all(look) {
            for group in &*look.groups.named {
                let counts = self.counts.entry(group.id).or_default();
                if counts.total() != group.total() {
                    *counts = group.counts.clone();
                }
            }
        }
        self.named = Some(look.groups.named.clone());
        self.filtered = look.counters.filtered;
        self.losses = look.losses();
    }

    /// Has nothing been counted since in any group?
    fn has_all(&self, look: &Look) -> bool {
        self.named.as_ref().is_some_and(|named| Rc::ptr_eq(named, &look.groups.named))
    }
}

impl GroupLedger {
    /// A ledger that begins now, at `boottime_ns`. `most`: of the groups that have left, so many are kept apart.
    pub(super) fn new(boottime_ns: u64, most: u32) -> Result<Self> {
        Ok(Self {
            run: Run::new(boottime_ns)?,
            known: HashMap::new(),
            committed: Baseline::default(),
            departed: Departed::new(most as usize),
            returned: HashMap::new(),
        })
    }

    /// Describes a group from a sample. `is_named`: each of its files could be looked into; if not, its signature may be another one than
    /// with names.
    pub(super) fn learn(&mut self, group: GroupId, identity: Identity, is_named: bool) {
        let known = self.known.entry(group).or_insert_with(|| Known::new(identity.clone()));
        if is_named {
            known.add(identity);
        }
    }

    /// The executable of a group, if a sample has named it.
    pub(super) fn exe(&self, group: GroupId) -> Option<&str> {
        self.known.get(&group)?.identity().exe.as_deref()
    }

    /// A group that is there goes on from what it had counted if it was there before. `is_new`: no look has seen it.
    pub(super) fn welcome(&mut self, group: &mut Group, is_new: bool) {
        if is_new
            && !self.returned.contains_key(&group.id)
            && let Some(before) = self.departed.take(&group.facts.key)
        {
            self.returned.insert(group.id, before);
        }
        if let Some(before) = self.returned.get(&group.id) {
            group.before = before.total;
            if group.facts.first_ns != before.first_ns {
                Rc::make_mut(&mut group.facts).first_ns = before.first_ns;
            }
        }
    }

    /// How much of a group's count was reported.
    pub(super) fn told(&self, group: GroupId) -> u64 {
        self.committed.counts.get(&group).map_or(0, Counts::total)
    }

    /// The events of groups that have left.
    pub(super) fn departed(&self) -> u64 {
        self.departed.total()
    }

    /// A group has left the kernel's table, and all of its count was reported.
    pub(super) fn depart(&mut self, group: &Group) {
        self.returned.remove(&group.id);
        self.committed.counts.remove(&group.id);
        let known = self.known.remove(&group.id);
        self.departed.add(group, known.as_ref().map(Known::identity));
    }

    /// A rest has left: nothing counts in its row.
    pub(super) fn forget(&mut self, rest: GroupId) {
        self.known.remove(&rest);
    }

    /// The summary of what came since the last one that was committed, with all groups there were if it is the last one. `stack`: a
    /// group's exemplar, for those without a sample.
    pub(super) fn summarize(&self, look: &Look, stack: impl Fn(&Group) -> Result<Vec<StackFrame>>) -> Result<Summary> {
        let mut groups = Vec::new();
        let named = if look.last || !self.committed.has_all(look) { &*look.groups.named } else { &[] };
        for group in named {
            let cpus = group.counts.since(self.committed.counts.get(&group.id));
            // One whose ends all were something else has none.
            if !cpus.is_empty() || (look.last && group.total() > 0) {
                let is_estimated = look.groups.estimated.contains(&group.id);
                let described = self.describe(group, cpus, &stack)?;
                groups.push(summary::Group { estimated: described.estimated || is_estimated, ..described });
            }
        }
        if look.last {
            groups.extend(self.departed.groups()?);
        }
        groups.sort_by(|a, b| b.count.cmp(&a.count).then(b.total.cmp(&a.total)).then(a.signature.cmp(&b.signature)));
        let losses = look.losses().since(&self.committed.losses);
        let field = |place| losses.field(place).into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        let counted: u64 = groups.iter().map(|group| group.count).sum();
        let (head, interval) = self.run.interval(Summary::KIND, look.boottime_ns, look.last)?;
        Ok(Summary {
            head,
            interval,
            groups,
            // The sum of the same read, not the kernel's counter, which has moved on while the groups were read.
            deliveries: Deliveries {
                matched: counted + losses.get(GROUP_TABLE_FULL) + losses.get(CAUGHT_UNDECIDED),
                filtered: look.counters.filtered - self.committed.filtered,
            },
            losses: field(LossOutput::Losses),
            sample_losses: field(LossOutput::SampleLosses),
        })
    }

    /// The summary of `look` was reported: the next summary begins there.
    pub(super) fn commit(&mut self, look: &Look) {
        self.committed.advance(look);
        self.run.commit(look.boottime_ns);
    }

    fn describe(
        &self,
        group: &Group,
        cpus: BTreeMap<u32, u64>,
        stack: impl Fn(&Group) -> Result<Vec<StackFrame>>,
    ) -> Result<summary::Group> {
        let facts = &group.facts;
        let known = self.known.get(&group.id);
        let (signature, of) = match known.map(Known::identity) {
            Some(identity) => (Some(identity.signature.clone()), identity.clone()),
            None => known::of_group(facts, &stack(group)?),
        };
        let seen = Seen {
            total: group.total() + group.before,
            first_ns: facts.first_ns,
            last_ns: facts.last_ns,
            last_pid: facts.last_pid,
        };
        Ok(summary::Group {
            signature,
            estimated: known.is_some_and(Known::is_mixed),
            count: cpus.values().sum(),
            cpus: cpus.into_iter().filter(|(cpu, _)| *cpu != SHARED).collect(),
            ..known::told(&facts.key, &seen, of)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{self, Kind};
    use crate::output::Timestamp;
    use crate::probe::abi::{fl_group, fl_group_key};
    use crate::probe::losses;

    fn row(row: u32) -> GroupId {
        GroupId { row, serial: 1 }
    }

    fn group(id: u32, counts: &[u64]) -> Group {
        let key = fl_group_key { signal: 11, has_code: 1, si_code: 1, frames: 1, ..fl_group_key::default() };
        let facts = fl_group { key, first_ns: 1, last_ns: 2, stack_id: -1, build_id_length: 1, ..fl_group::default() };
        Group { id: row(id), facts: facts.into(), counts: counts.iter().copied().collect(), before: 0 }
    }

    fn identity(signature: &str) -> Identity {
        Identity {
            signature: signature.to_owned(),
            family: Some(format!("family of {signature}")),
            abort_message: Some(format!("message of {signature}")),
            ..Identity::default()
        }
    }

    fn look(named: Vec<Group>, ungrouped: u64) -> Look {
        Look {
            groups: Counted { named: named.into(), ungrouped, ..Counted::default() },
            counters: Counters {
                filtered: 7,
                losses: Losses::none(&losses::CRASH).with("sample_budget", 2).with("write_failed", 3),
                ..Counters::default()
            },
            boottime_ns: 2_000_000_000,
            last: false,
        }
    }

    fn none(_: &Group) -> Result<Vec<StackFrame>> {
        Ok(Vec::new())
    }

    fn ledger() -> GroupLedger {
        GroupLedger::new(1_000_000_000, 10).unwrap()
    }

    #[test]
    fn everything_adds_up() {
        let summary = ledger().summarize(&look(vec![group(0, &[3, 0]), group(1, &[1, 5])], 4), none).unwrap();
        assert_eq!(summary.deliveries, Deliveries { matched: 13, filtered: 7 });
        assert!(summary.adds_up());
        assert_eq!(summary.interval.interval_seconds, 1.0);
        assert_eq!((summary.groups[0].count, summary.groups[1].count), (6, 3), "most frequent first");
        assert_eq!(summary.groups[0].cpus, BTreeMap::from([(0, 1), (1, 5)]));
        assert_eq!(summary.groups[1].cpus, BTreeMap::from([(0, 3)]));
        assert_eq!(summary.sample_losses["sample_ring_full"], 0, "zeros are shown");
        assert_eq!(summary.sample_losses["write_failed"], 3);
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut ledger = ledger();
        let first = look(vec![group(0, &[3]), group(1, &[1])], 4);
        ledger.commit(&first);
        let second = Look { boottime_ns: 3_500_000_000, ..look(vec![group(0, &[5]), group(1, &[1])], 4) };
        let summary = ledger.summarize(&second, none).unwrap();
        assert_eq!(summary.groups.len(), 1, "only those with events");
        assert_eq!((summary.groups[0].count, summary.groups[0].total), (2, 5));
        assert_eq!((summary.deliveries.matched, summary.losses["group_table_full"]), (2, 0));
        assert_eq!((summary.deliveries.filtered, summary.sample_losses["sample_budget"]), (0, 0));
        assert_eq!(summary.interval.interval_seconds, 1.5);
    }

    #[test]
    fn what_could_not_be_written_is_told_with_the_next() {
        let ledger = ledger();
        ledger.summarize(&look(vec![group(0, &[3])], 0), none).unwrap();
        let next = ledger.summarize(&look(vec![group(0, &[4])], 0), none).unwrap();
        assert_eq!(next.groups[0].count, 4);
    }

    #[test]
    fn the_last_one_has_all() {
        let mut ledger = ledger();
        let all = look(vec![group(0, &[3])], 0);
        ledger.commit(&all);
        let summary = ledger.summarize(&Look { last: true, ..all }, none).unwrap();
        assert!(summary.interval.last && summary.adds_up());
        assert_eq!((summary.groups[0].count, summary.groups[0].total), (0, 3));
    }

    #[test]
    fn a_sample_names_its_group_and_a_stack_does_where_there_is_none() {
        let mut ledger = ledger();
        ledger.learn(row(0), identity("abc"), true);
        let stack = |_: &Group| Ok(vec![StackFrame { build_id: [1; 20], offset: 0x1139 }]);
        let summary = ledger.summarize(&look(vec![group(0, &[2]), group(1, &[1])], 0), stack).unwrap();
        assert_eq!(summary.groups[0].signature.as_deref(), Some("abc"));
        assert_eq!(summary.groups[1].signature, None, "a sample's could be another one");
        assert_eq!(summary.groups[1].build_id.as_deref(), Some("00"));
        assert_eq!(summary.groups[1].place(), "offset 0x1139");
        let unknown = ledger.summarize(&look(vec![group(2, &[1])], 0), none).unwrap();
        assert_eq!(unknown.groups[0].signature, None, "neither sample nor stack");
        let mut sent = group(3, &[1]);
        let key = &mut Rc::make_mut(&mut sent.facts).key;
        (key.has_code, key.frames) = (0, 0);
        let sent = ledger.summarize(&look(vec![sent], 0), none).unwrap();
        let wanted = identity::signature(Kind { signal: "SIGSEGV", fault: None }, false, Some("00"), &[], None);
        assert_eq!(sent.groups[0].signature, Some(wanted), "the same as a sample's");
    }

    #[test]
    fn a_group_with_records_of_two_bugs_is_estimated() {
        let mut ledger = ledger();
        let group =
            |ledger: &GroupLedger| ledger.summarize(&look(vec![group(0, &[9])], 0), none).unwrap().groups.remove(0);
        ledger.learn(row(0), identity("unnamed"), false);
        assert_eq!((group(&ledger).signature.as_deref(), group(&ledger).estimated), (Some("unnamed"), false));
        ledger.learn(row(0), identity("a"), true);
        ledger.learn(row(0), identity("unnamed"), false);
        assert_eq!((group(&ledger).signature.as_deref(), group(&ledger).estimated), (Some("a"), false));
        assert_eq!(group(&ledger).family.as_deref(), Some("family of a"));
        assert_eq!(group(&ledger).abort_message.as_deref(), Some("message of a"), "that of the same record");
        ledger.learn(row(0), identity("b"), true);
        assert_eq!((group(&ledger).signature.as_deref(), group(&ledger).estimated), (Some("a"), true));
        ledger.learn(row(0), identity("b"), true);
        assert_eq!((group(&ledger).signature.as_deref(), group(&ledger).estimated), (Some("b"), true), "most of them");
        let all = look(vec![super::tests::group(0, &[9])], 0);
        assert!(ledger.summarize(&all, none).unwrap().adds_up());
    }

    /// A group that has left is reported once, and goes on when it comes again.
    #[test]
    fn a_group_that_leaves_and_comes_again_goes_on() {
        let mut ledger = ledger();
        ledger.commit(&look(vec![group(0, &[3])], 0));
        assert_eq!(ledger.told(row(0)), 3);
        ledger.depart(&group(0, &[3]));
        let last = ledger.summarize(&Look { last: true, ..look(Vec::new(), 0) }, none).unwrap();
        assert_eq!((last.groups.len(), last.groups[0].count, last.groups[0].total), (1, 0, 3));
        let mut again = Group { id: GroupId { row: 0, serial: 2 }, ..group(0, &[1]) };
        Rc::make_mut(&mut again.facts).first_ns = 5;
        ledger.welcome(&mut again, true);
        let summary = ledger.summarize(&Look { last: true, ..look(vec![again], 0) }, none).unwrap();
        assert_eq!((summary.groups.len(), summary.groups[0].count, summary.groups[0].total), (1, 1, 4));
        assert_eq!(summary.groups[0].first_seen, Timestamp::from_boottime(1).unwrap());
        assert!(summary.adds_up());
    }
}
