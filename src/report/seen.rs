//! Which summaries were merged already: the same file may be given twice, or a rotated one beside its copy. Exact, in some two bytes a
//! summary: the summaries of a run come at nearly equal distances, so that only the differences of distances are kept.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, PoisonError};

/// How many threads can look at once.
const SHARDS: usize = 64;
/// How many moments stand in one piece, which is searched from its beginning.
const PIECE: usize = 128;

/// One run of faultline on one host: its summaries differ in their time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    /// The host's name.
    pub host: String,
    /// The boot's id.
    pub boot_id: Option<String>,
    /// When counting began, microseconds since 1970.
    pub since: i64,
    /// Which line of each summary these are, where it has several.
    pub part: u32,
}

/// All summaries so far, from any thread.
#[derive(Debug)]
pub(super) struct Seen {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<Run, Moments>>>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Seen {
    /// A number that nobody else can foresee, the same in all threads.
    pub(super) fn hash(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    /// Remembers the summary of `run` that ended at `moment`, microseconds since 1970. False: it was there.
    pub(super) fn insert(&self, run: Run, moment: i64) -> bool {
        let shard = &self.shards[self.hasher.hash_one(&run) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner).entry(run).or_default().insert(moment)
    }
}

/// A set of moments, small if they come in their order.
#[derive(Debug, Default)]
struct Moments {
    pieces: Vec<Piece>,
}

/// Moments that rise.
#[derive(Debug)]
struct Piece {
    first: i64,
    last: i64,
    /// Between the last two.
    distance: i64,
    count: usize,
    /// By how much each distance differs from the one before it.
    changes: Vec<u8>,
}

impl Moments {
    fn insert(&mut self, moment: i64) -> bool {
        if self.pieces.iter().any(|piece| piece.contains(moment)) {
            return false;
        }
        match self.pieces.last_mut() {
            Some(piece) if piece.count < PIECE && piece.last < moment => piece.push(moment),
            _ => self.pieces.push(Piece { first: moment, last: moment, distance: 0, count: 1, changes: Vec::new() }),
        }
        true
    }
}

impl Piece {
    fn contains(&self, moment: i64) -> bool {
        if !(self.first..=self.last).contains(&moment) {
            return false;
        }
        let (mut at, mut distance, mut rest) = (self.first, 0_i64, &self.changes[..]);
        while at < moment {
            let Some(change) = take(&mut rest) else { return false };
            distance = distance.wrapping_add(change);
            at = at.wrapping_add(distance);
        }
        at == moment
    }

    fn push(&mut self, moment: i64) {
        let distance = moment.wrapping_sub(self.last);
        put(&mut self.changes, distance.wrapping_sub(self.distance));
        (self.last, self.distance, self.count) = (moment, distance, self.count + 1);
    }
}

/// Seven bits a byte, the sign in the lowest one (LEB128 of a zigzag).
fn put(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(host: &str, part: u32) -> Run {
        Run { host: host.to_owned(), boot_id: None, since: 7, part }
    }

    /// Every ten seconds, a millisecond more or less.
    fn moment(number: i64) -> i64 {
        1_767_225_600_000_000 + number * 10_000_000 + (number * 7919) % 1000
    }

    #[test]
    fn each_summary_is_new_once_in_any_order() {
        let seen = Seen::default();
        let orders: [Vec<i64>; 3] =
            [(0..500).collect(), (0..500).rev().collect(), (0..500).map(|number| number * 333 % 500).collect()];
        for (host, order) in ["a", "b", "c"].iter().zip(orders) {
            for part in 1..3 {
                assert!(order.iter().all(|number| seen.insert(run(host, part), moment(*number))), "{host}");
                assert!(order.iter().all(|number| !seen.insert(run(host, part), moment(*number))), "{host}");
                assert!(seen.insert(run(host, part), moment(3) + 1), "a microsecond is another time");
            }
        }
    }

    #[test]
    fn a_summary_takes_two_bytes() {
        let mut moments = Moments::default();
        for number in 0..8640 {
            assert!(moments.insert(moment(number)));
        }
        let bytes: usize = moments.pieces.iter().map(|piece| piece.changes.len() + size_of::<Piece>()).sum();
        assert!(bytes < 8640 * 3, "{bytes}");
    }

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN];
        let mut bytes = Vec::new();
        numbers.iter().for_each(|number| put(&mut bytes, *number));
        let mut rest = &bytes[..];
        assert!(numbers.iter().all(|number| take(&mut rest) == Some(*number)));
        assert_eq!(take(&mut rest), None);
    }
}
