//! Counts how often each name was seen, in bounded room: processes can have a new name each time.

use std::collections::BTreeMap;

/// How many names a tally has room for; the counts of further names are added together.
const ROOM: usize = 1024;

/// Numbers of other hosts may be damaged: a sum saturates and never wraps around.
pub(super) fn add_to(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count);
}

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<String, u64>,
    other: u64,
}

impl Tally {
    /// Counts `name`. With 0 the name is listed, without events.
    pub(super) fn add(&mut self, name: &str, count: u64) {
        if let Some(known) = self.counts.get_mut(name) {
            add_to(known, count);
        } else if self.counts.len() < ROOM {
            self.counts.insert(name.to_owned(), count);
        } else {
            add_to(&mut self.other, count);
        }
    }

    /// Adds what was counted elsewhere.
    pub(super) fn absorb(&mut self, other: Self) {
        add_to(&mut self.other, other.other);
        other.counts.iter().for_each(|(name, count)| self.add(name, *count));
    }

    /// The `most` names with the highest counts, and the sum of all other counts.
    pub(super) fn top(&self, most: usize) -> (Vec<(&str, u64)>, u64) {
        let mut names: Vec<(&str, u64)> = self.counts.iter().map(|(name, &count)| (name.as_str(), count)).collect();
        // The sort is stable: equal counts stay in the order of their names.
        names.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let rest = names.split_off(most.min(names.len()));
        (names, rest.iter().fold(self.other, |sum, &(_, count)| sum.saturating_add(count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_come_first() {
        let mut tally = Tally::default();
        for (name, count) in [("a", 1), ("b", 5), ("c", 2), ("a", 1), ("d", 0)] {
            tally.add(name, count);
        }
        assert_eq!(tally.top(2), (vec![("b", 5), ("a", 2)], 2));
        assert_eq!(tally.top(9), (vec![("b", 5), ("a", 2), ("c", 2), ("d", 0)], 0));
    }

    #[test]
    fn room_is_bounded_and_nothing_is_lost() {
        let mut tally = Tally::default();
        for name in 0..ROOM + 10 {
            tally.add(&name.to_string(), 3);
        }
        let (names, other) = tally.top(usize::MAX);
        assert_eq!((names.len(), other), (ROOM, 30));
        tally.add("0", 1);
        assert_eq!(tally.top(1), (vec![("0", 4)], 30 + 3 * (ROOM as u64 - 1)), "known names go on counting");
    }
}
