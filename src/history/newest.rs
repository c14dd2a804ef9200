//! The newest records, as many as were asked for and find room.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::output::Timestamp;

/// How many bytes are kept until all files are read.
const ROOM: usize = 256 << 20;

/// What knows how much memory it takes.
pub(super) trait Weigh {
    /// How many bytes, about.
    fn bytes(&self) -> usize;
}

/// Records by time. Equal lines are one record: a log that is just being compressed is there twice.
pub(super) struct Newest<T> {
    most: usize,
    room: usize,
    bytes: usize,
    unkept: u64,
    /// By time and the hash of the line.
    kept: BTreeMap<(Timestamp, u64), T>,
}

impl<T: Weigh> Newest<T> {
    /// At most so many of them; `None` means all.
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { most: most.unwrap_or(usize::MAX), room: ROOM, bytes: 0, unkept: 0, kept: BTreeMap::new() }
    }

    /// If there are as many as there can be, only later ones than this are of interest.
    pub(super) fn bound(&self) -> Option<Timestamp> {
        let is_full = self.kept.len() >= self.most || self.unkept != 0;
        self.kept.keys().next().filter(|_| is_full).map(|(oldest, _)| *oldest)
    }

    /// Adds a record that is among the newest. `value`: what is kept of it.
    pub(super) fn add(&mut self, at: Timestamp, line: &str, value: impl FnOnce() -> T) {
        if self.kept.len() >= self.most && self.bound().is_none_or(|oldest| at < oldest) {
            return;
        }
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        self.kept.entry((at, hasher.finish())).or_insert_with(|| {
            let value = value();
            self.bytes += value.bytes();
            value
        });
        while self.kept.len() > self.most || self.bytes > self.room {
            self.unkept += u64::from(self.kept.len() <= self.most);
            let Some((_, oldest)) = self.kept.pop_first() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// Records that found no room. Others, in files that were not read for that reason, are not counted.
    pub(super) fn unkept(&self) -> u64 {
        self.unkept
    }

    /// Oldest first.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.kept.values()
    }

    /// The same.
    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        self.kept.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for u32 {
        fn bytes(&self) -> usize {
            4
        }
    }

    fn at(second: u32) -> Timestamp {
        Timestamp::from_unix_ns(i128::from(second) * 1_000_000_000).unwrap()
    }

    fn kept(newest: &mut Newest<u32>, seconds: &[u32]) -> Vec<u32> {
        for &second in seconds {
            newest.add(at(second), &format!("line {second}"), || second);
        }
        newest.values().copied().collect()
    }

    #[test]
    fn the_newest_stay_in_their_order_each_once() {
        let mut newest = Newest::new(Some(2));
        assert_eq!(kept(&mut newest, &[5]), [5]);
        assert_eq!(newest.bound(), None, "there is room for an older one");
        assert_eq!(kept(&mut newest, &[5, 3]), [3, 5]);
        assert_eq!(newest.bound(), Some(at(3)));
        assert_eq!(kept(&mut newest, &[1, 9, 4, 9]), [5, 9]);
        assert_eq!(newest.unkept(), 0, "nobody asked for more");
        assert_eq!(kept(&mut Newest::new(None), &[2, 1, 3]), [1, 2, 3]);
        newest.add(at(9), "another line", || 10);
        assert_eq!(newest.values().count(), 2);
        assert_eq!(kept(&mut Newest::new(Some(0)), &[1]), Vec::<u32>::new());
    }

    #[test]
    fn what_finds_no_room_is_the_oldest_and_counted() {
        let mut newest = Newest { room: 8, ..Newest::new(None) };
        assert_eq!(kept(&mut newest, &[1, 2, 3, 4]), [3, 4]);
        assert_eq!((newest.unkept(), newest.bytes, newest.bound()), (2, 8, Some(at(3))));
    }
}
