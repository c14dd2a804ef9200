//! Room for the most frequent groups, however many there are: a Misra-Gries sketch that is cleared by its median, as Apache DataSketches'
//! "frequent items" is.
//!
//! Every group has a credit, which its events raise. When there is no room, the median of all credits is taken from each, and the lower half
//! leaves. So a group that is not there has had at most as many events as the medians together (`bound`), and as each of them was taken
//! from at least half of the groups, this is at most 2 / `most` of all events. What is counted of a group that is there is exact from
//! the moment on at which it came; before, it had at most what `bound` was then.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// A group and its place.
#[derive(Debug)]
struct Held<T> {
    of: T,
    credit: u64,
    /// How many events it may have had before it came (back).
    missing_at_most: u64,
}

/// The groups that have a place.
#[derive(Debug)]
pub(super) struct Room<K, T> {
    /// Hashed, because each group of each summary is looked up; to visit all of them, code takes them in the order of the keys.
    held: HashMap<K, Held<T>>,
    most: usize,
    bound: u64,
}

impl<K: Ord + Hash + Clone, T> Room<K, T> {
    /// For `most` groups at most, and half of them at least.
    pub(super) fn new(most: usize) -> Self {
        Self { held: HashMap::new(), most, bound: 0 }
    }

    /// How many events a group that isn't there has had at most.
    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    /// The group of `key`, made by `new` if it isn't there, with `count` more events; and those that had to leave for it.
    pub(super) fn raise(&mut self, key: K, count: u64, new: impl FnOnce() -> T) -> (&mut T, Vec<T>) {
        let gone = self.make_place(&key);
        let missing_at_most = self.bound;
        let held = self.held.entry(key).or_insert_with(|| Held { of: new(), credit: 0, missing_at_most });
        held.credit = held.credit.saturating_add(count);
        (&mut held.of, gone)
    }

    /// The same with what was counted elsewhere: `join` adds it to the group that is there.
    pub(super) fn join(&mut self, key: K, count: u64, of: T, join: impl FnOnce(&mut T, T)) -> Vec<T> {
        let gone = self.make_place(&key);
        let missing_at_most = self.bound;
        match self.held.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Held { of, credit: count, missing_at_most });
            }
            Entry::Occupied(mut place) => {
                let held = place.get_mut();
                held.credit = held.credit.saturating_add(count);
                join(&mut held.of, of);
            }
        }
        gone
    }

    /// Room for the group of `key`, if it isn't there: those that had to leave for it.
    fn make_place(&mut self, key: &K) -> Vec<T> {
        if self.held.len() >= self.most && !self.held.contains_key(key) { self.clear() } else { Vec::new() }
    }

    /// The group of `key`, if it is there.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        self.held.get_mut(key).map(|held| &mut held.of)
    }

    /// All that are there, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        let mut keys: Vec<&K> = self.held.keys().collect();
        keys.sort_unstable();
        keys.into_iter()
    }

    /// Takes a group out.
    pub(super) fn remove(&mut self, key: &K) -> Option<T> {
        self.held.remove(key).map(|held| held.of)
    }

    /// Half of the groups leave: those with the lowest credit, of equals the last in the order of their keys.
    fn clear(&mut self) -> Vec<T> {
        let mut order: Vec<(Reverse<u64>, K)> =
            self.held.iter().map(|(key, held)| (Reverse(held.credit), key.clone())).collect();
        order.sort_unstable();
        let leave = order.split_off(order.len() / 2);
        let median = leave.first().map_or(0, |(credit, _)| credit.0);
        self.bound = self.bound.saturating_add(median);
        let gone = leave.iter().filter_map(|(_, key)| self.held.remove(key)).map(|held| held.of).collect();
        for held in self.held.values_mut() {
            held.credit -= median;
        }
        gone
    }

    /// The groups of another room, in the order of their keys, each with its events' number; `bound` is already the sum of both.
    pub(super) fn into_held(self) -> impl Iterator<Item = (K, T, u64)> {
        let mut all: Vec<(K, Held<T>)> = self.held.into_iter().collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all.into_iter().map(|(key, held)| (key, held.of, held.missing_at_most))
    }

    /// Another room, which saw other events, has been cleared: the groups that it dropped may have been any of these.
    pub(super) fn widen(&mut self, bound: u64) {
        if bound != 0 {
            self.bound = self.bound.saturating_add(bound);
            for held in self.held.values_mut() {
                held.missing_at_most = held.missing_at_most.saturating_add(bound);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A stream with a few frequent keys among many rare ones, always the same.
    fn stream() -> Vec<(u64, u64)> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        (0..200_000)
            .map(|_| if next() % 4 == 0 { (next() % 10, next() % 5) } else { (10 + next() % 50_000, 1) })
            .collect()
    }

    #[test]
    fn the_heaviest_stay_and_the_bound_holds() {
        const MOST: usize = 256;
        let mut room: Room<u64, u64> = Room::new(MOST);
        let (mut truth, mut left, mut all) = (HashMap::<u64, u64>::new(), 0, 0);
        for (key, count) in stream() {
            *truth.entry(key).or_default() += count;
            all += count;
            let (held, gone) = room.raise(key, count, || 0);
            *held += count;
            left += gone.iter().sum::<u64>();
            assert!(room.held.len() <= MOST);
        }
        let bound = room.bound();
        assert!(bound <= 2 * all / MOST as u64, "{bound} of {all}");
        let held: Vec<(u64, u64, u64)> = room.into_held().collect();
        assert_eq!(held.iter().map(|(_, count, _)| count).sum::<u64>() + left, all, "nothing is lost from the sum");
        for (key, count, missing_at_most) in &held {
            assert!((*count..=count + missing_at_most).contains(&truth[key]), "{key}");
        }
        for (key, count) in truth {
            assert!(count <= bound || held.iter().any(|(held, ..)| *held == key), "{key} has {count}");
        }
        assert!((0..10).all(|key| held.iter().any(|(held, _, missing)| *held == key && *missing < bound)));
    }

    #[test]
    fn with_room_all_is_exact() {
        let mut room: Room<u64, u64> = Room::new(3);
        for key in [1, 2, 3, 2, 1] {
            let (held, gone) = room.raise(key, 1, || 0);
            *held += 1;
            assert!(gone.is_empty());
        }
        assert_eq!(room.bound(), 0);
        assert_eq!(room.into_held().collect::<Vec<_>>(), [(1, 2, 0), (2, 2, 0), (3, 1, 0)]);
    }

    #[test]
    fn of_equals_the_first_half_stays() {
        let mut room: Room<u64, ()> = Room::new(4);
        for key in 0..4 {
            room.raise(key, 1, || ());
        }
        assert_eq!(room.raise(9, 1, || ()).1.len(), 2);
        assert_eq!(room.into_held().map(|(key, ..)| key).collect::<Vec<_>>(), [0, 1, 9]);
    }
}
