//! Keeps account of ends that the kernel has counted as caught, and that are to be proved: what each of them was is known only when its sample has
//! been unwound. Until then it is in no number, so that no number falls.
//!
//! Ends without a sample, as in a storm, are taken to be what those of their group are that had one; such a number is an estimate.

use std::collections::HashMap;

use crate::probe::abi::{fl_disposition, fl_group_key};
use crate::probe::{Counters, Group, GroupId, SHARED};

/// What an end of such a group was.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// The fault's.
    Caught,
    /// It counts in the group of this key.
    Instead(fl_group_key),
    /// An exit that is no death.
    Gone,
    /// An exit that may be one.
    Undecided,
}

impl Verdict {
    /// Is it an end that has no record?
    fn is_silent(self) -> bool {
        matches!(self, Self::Gone | Self::Undecided)
    }
}

/// Ends that count in another group: its key, the processor, and how many.
pub(super) type Moved = (fl_group_key, usize, u64);

/// One group of such ends.
#[derive(Debug, Default)]
struct Split {
    /// By processor: those that are in a number by now.
    placed: Vec<u64>,
    /// The ones of these that are the group's own.
    own: Vec<u64>,
    /// Those that were judged since the last look, and are the group's own, or not.
    judged: Vec<(u64, u64)>,
    /// All that were judged, and those of them that were the fault's.
    verdicts: u64,
    caught: u64,
    /// The last other verdict.
    other: Option<Verdict>,
    is_estimated: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    groups: HashMap<GroupId, Split>,
    /// Ends that are in no number any more, since the start.
    silent: u64,
    /// How many of these may have been deaths.
    undecided: u64,
    /// Ends that were fatal signals, since the start.
    fatal: u64,
}

/// Is the group one of ends that are to be proved?
pub(super) fn is_unproved(group: &Group) -> bool {
    group.facts.key.disposition == fl_disposition::FL_DISPOSED_MAYBE_CAUGHT
}

fn at<Value: Default + Clone>(values: &mut Vec<Value>, index: usize) -> &mut Value {
    if values.len() <= index {
        values.resize(index + 1, Value::default());
    }
    &mut values[index]
}

impl Verdicts {
    /// How many exits could not be decided, since the start.
    pub(super) fn undecided(&self) -> u64 {
        self.undecided
    }

    /// Was any end to be proved?
    pub(super) fn are_used(&self) -> bool {
        !self.groups.is_empty() || self.silent > 0 || self.fatal > 0
    }

    /// How many ends are in no number any more, since the start.
    pub(super) fn silent(&self) -> u64 {
        self.silent
    }

    /// The kernel's counters, with what is known by now.
    pub(super) fn correct(&self, counters: Counters) -> Counters {
        Counters {
            matched: counters.matched.saturating_sub(self.silent - self.undecided),
            fatal: counters.fatal + self.fatal,
            caught: counters.caught.saturating_sub(self.fatal + self.silent),
            ..counters
        }
    }

    fn count(&mut self, verdict: Verdict, many: u64) {
        match verdict {
            Verdict::Caught => {}
            Verdict::Instead(key) if key.disposition == fl_disposition::FL_DISPOSED_FATAL => self.fatal += many,
            Verdict::Instead(_) => {}
            Verdict::Gone => self.silent += many,
            Verdict::Undecided => {
                self.silent += many;
                self.undecided += many;
            }
        }
    }

    /// An end was judged, which was counted on this processor in this group. `None` means that groups are off.
    pub(super) fn add(&mut self, group: Option<GroupId>, processor: u32, verdict: Verdict) {
        self.count(verdict, 1);
        let Some(group) = group else { return };
        let split = self.groups.entry(group).or_default();
        split.verdicts += 1;
        let (own, other) = at(&mut split.judged, processor as usize);
        if let Verdict::Caught = verdict {
            split.caught += 1;
            *own += 1;
        } else {
            split.other = Some(verdict);
            *other += 1;
        }
    }

    /// Are there ends of this group whose samples have been sent, and not been judged?
    pub(super) fn is_pending(&self, group: &Group) -> bool {
        is_unproved(group) && self.pending(group) > 0
    }

    fn pending(&self, group: &Group) -> u64 {
        let judged = self.groups.get(&group.id).map_or(0, |split| split.verdicts);
        u64::from(group.facts.samples).saturating_sub(judged)
    }

    /// Is the number of this group's ends an estimate?
    pub(super) fn is_estimated(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(|split| split.is_estimated)
    }

    /// The group has left.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.groups.remove(&group);
    }

    /// Leaves in the group what is known to be its own by now. Adds what is another one's to `moved`, and returns how many are in no number until
    /// they are judged. `is_last`: nothing more will be judged.
    pub(super) fn split(&mut self, group: &mut Group, is_last: bool, moved: &mut Vec<Moved>) -> u64 {
        if !is_unproved(group) {
            return 0;
        }
        let pending = if is_last { 0 } else { self.pending(group) };
        let split = self.groups.entry(group.id).or_default();
        let counts = group.counts.by_processor();
        let mut open: Vec<u64> = Vec::with_capacity(counts.len());
        let shared = SHARED as usize;
        let (has_shared, mut of_shared) = (counts.len() > shared, 0);
        for (processor, &count) in counts.iter().enumerate() {
            let (own, other) = std::mem::take(at(&mut split.judged, processor));
            *at(&mut split.own, processor) += own;
            let placed = at(&mut split.placed, processor);
            *placed += own + other;
            if processor == shared {
                *placed += of_shared;
            } else if has_shared {
                // A record tells the processor of an end that the kernel has counted without.
                of_shared += placed.saturating_sub(count);
                *placed = (*placed).min(count);
            }
            open.push(count.saturating_sub(*placed));
        }
        let all: u64 = open.iter().sum();
        // Before the first verdict nobody knows what the others are.
        let held = if split.verdicts == 0 && pending > 0 { all } else { pending.min(all) };
        let verdict = if split.caught > 0 { Verdict::Caught } else { split.other.unwrap_or(Verdict::Caught) };
        let mut left = all - held;
        split.is_estimated |= left > 0;
        for (processor, open) in open.into_iter().enumerate() {
            let many = open.min(left);
            left -= many;
            *at(&mut split.placed, processor) += many;
            match verdict {
                Verdict::Caught => *at(&mut split.own, processor) += many,
                Verdict::Instead(key) if many > 0 => moved.push((key, processor, many)),
                _ => {}
            }
        }
        group.counts = split.own.iter().copied().collect();
        // An exit without a sample was not looked at: that others of its place were no deaths proves nothing of it.
        let without = if verdict.is_silent() { Verdict::Undecided } else { verdict };
        self.count(without, all - held);
        held
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::probe::Counts;
    use crate::probe::abi::fl_group;

    fn id() -> GroupId {
        GroupId { row: 0, serial: 1 }
    }

    /// The group with these counts, of which so many have had a sample.
    fn group(counts: &[u64], samples: u32) -> Group {
        let key = fl_group_key { disposition: fl_disposition::FL_DISPOSED_MAYBE_CAUGHT, ..fl_group_key::default() };
        let facts = fl_group { key, samples, ..fl_group::default() };
        Group { id: id(), facts: facts.into(), counts: counts.iter().copied().collect(), before: 0 }
    }

    fn fatal() -> Verdict {
        Verdict::Instead(fl_group_key { signal: 6, ..fl_group_key::default() })
    }

    /// What the group keeps, what is another one's, what is in no number yet, and what is in none any more.
    fn split(verdicts: &mut Verdicts, counts: &[u64], samples: u32) -> (Vec<u64>, u64, u64, u64) {
        let (mut group, mut moved) = (group(counts, samples), Vec::new());
        let held = verdicts.split(&mut group, false, &mut moved);
        let mut own = group.counts.by_processor();
        own.resize(counts.len(), 0);
        (own, moved.iter().map(|(_, _, many)| many).sum(), held, verdicts.silent())
    }

    #[test]
    fn what_is_not_judged_is_in_no_number() {
        let mut verdicts = Verdicts::default();
        assert_eq!(split(&mut verdicts, &[3, 2], 2), (vec![0, 0], 0, 5, 0), "nobody knows what they are");
        assert!(verdicts.is_pending(&group(&[3, 2], 2)));
        verdicts.add(Some(id()), 1, Verdict::Caught);
        assert_eq!(split(&mut verdicts, &[3, 2], 2), (vec![3, 1], 0, 1, 0), "one has yet to be judged");
        assert!(verdicts.is_estimated(id()), "three had no sample");
        verdicts.add(Some(id()), 1, Verdict::Caught);
        assert_eq!(split(&mut verdicts, &[3, 2], 2), (vec![3, 2], 0, 0, 0));
        assert!(!verdicts.is_pending(&group(&[3, 2], 2)));
    }

    #[test]
    fn each_end_with_a_sample_is_counted_as_what_it_was() {
        let mut verdicts = Verdicts::default();
        for verdict in [Verdict::Caught, fatal(), Verdict::Gone, Verdict::Undecided] {
            verdicts.add(Some(id()), 0, verdict);
        }
        assert_eq!(split(&mut verdicts, &[4], 4), (vec![1], 0, 0, 2));
        assert!(!verdicts.is_estimated(id()) && verdicts.undecided() == 1);
        let counters = Counters { matched: 4, caught: 4, ..Counters::default() };
        let correct = verdicts.correct(counters);
        assert_eq!((correct.matched, correct.fatal, correct.caught), (3, 1, 1), "and one is undecided");
    }

    #[test]
    fn ends_without_a_sample_are_what_the_others_were() {
        let mut verdicts = Verdicts::default();
        verdicts.add(Some(id()), 0, fatal());
        assert_eq!(split(&mut verdicts, &[10], 1), (vec![0], 9, 0, 0));
        assert_eq!(split(&mut verdicts, &[12], 1), (vec![0], 2, 0, 0), "each once");
        let counters = Counters { matched: 12, caught: 12, ..Counters::default() };
        assert_eq!((verdicts.correct(counters).fatal, verdicts.correct(counters).caught), (12, 0));
        let mut verdicts = Verdicts::default();
        verdicts.add(Some(id()), 0, Verdict::Gone);
        assert_eq!(split(&mut verdicts, &[10], 1), (vec![0], 0, 0, 10));
        assert_eq!(verdicts.undecided(), 9, "an exit that nobody has looked at may be a death");
        let mut verdicts = Verdicts::default();
        assert_eq!(split(&mut verdicts, &[10], 0), (vec![10], 0, 0, 0), "no sample at all");
        assert!(verdicts.is_estimated(id()));
    }

    #[test]
    fn an_end_that_was_counted_without_its_processor_counts_once() {
        let mut verdicts = Verdicts::default();
        let counts = [(Some(0), 1), (None, 3)].into_iter().collect::<Counts>();
        let of = |verdicts: &mut Verdicts, counts: Counts| {
            let (mut group, mut moved) = (Group { counts, ..group(&[], 3) }, Vec::new());
            let held = verdicts.split(&mut group, false, &mut moved);
            (group.counts.since(None), held)
        };
        for processor in [1, 1, 0] {
            verdicts.add(Some(id()), processor, Verdict::Caught);
        }
        let expected = BTreeMap::from([(0, 1), (1, 2), (SHARED, 1)]);
        assert_eq!(of(&mut verdicts, counts), (expected, 0), "and one had no sample");
        let counts = [(Some(0), 1), (None, 4)].into_iter().collect::<Counts>();
        let expected = BTreeMap::from([(0, 1), (1, 2), (SHARED, 2)]);
        assert_eq!(of(&mut verdicts, counts), (expected, 0));
    }

    #[test]
    fn no_number_falls() {
        let mut verdicts = Verdicts::default();
        let (before, ..) = split(&mut verdicts, &[10], 0);
        verdicts.add(Some(id()), 0, fatal());
        let (after, moved, ..) = split(&mut verdicts, &[11], 1);
        assert_eq!((before, after, moved), (vec![10], vec![10], 0), "the judged one is among the new");
    }
}
