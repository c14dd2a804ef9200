//! The addresses that are accounted for: a set of ranges that don't touch.

use std::collections::BTreeMap;

/// Ranges of addresses, by their first one.
#[derive(Clone, Debug, Default)]
pub(super) struct Cover(BTreeMap<u64, u64>);

impl Cover {
    /// Adds the addresses from `start` to `end`.
    pub(super) fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut low, mut high) = (start, end);
        // The ranges that it touches are merged with it.
        while let Some((&from, &to)) = self.0.range(..=high).next_back().filter(|(_, to)| **to >= low) {
            low = low.min(from);
            high = high.max(to);
            self.0.remove(&from);
        }
        self.0.insert(low, high);
    }

    /// Takes the addresses from `start` to `end` out.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        while let Some((&from, &to)) = self.0.range(..end).next_back().filter(|(_, to)| **to > start) {
            self.0.remove(&from);
            if from < start {
                self.0.insert(from, start);
            }
            if to > end {
                self.0.insert(end, to);
            }
        }
    }

    /// Are all addresses from `start` to `end` in it?
    pub(super) fn holds(&self, start: u64, end: u64) -> bool {
        self.0.range(..=start).next_back().is_some_and(|(_, to)| *to >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one() {
        let mut cover = Cover::default();
        cover.add(10, 20);
        cover.add(30, 40);
        assert!(cover.holds(10, 20) && cover.holds(12, 13) && !cover.holds(10, 40) && !cover.holds(15, 35));
        cover.add(20, 30);
        assert!(cover.holds(10, 40) && !cover.holds(9, 11) && !cover.holds(39, 41));
        assert_eq!(cover.0.len(), 1);
    }

    #[test]
    fn a_hole_can_be_made_anywhere() {
        let mut cover = Cover::default();
        cover.add(0, 100);
        cover.remove(40, 60);
        assert!(cover.holds(0, 40) && cover.holds(60, 100) && !cover.holds(39, 41));
        cover.remove(30, 70);
        assert!(cover.holds(0, 30) && cover.holds(70, 100) && !cover.holds(30, 31));
        cover.remove(0, 200);
        assert!(cover.0.is_empty());
        cover.add(5, 5);
        assert!(cover.0.is_empty());
    }
}
