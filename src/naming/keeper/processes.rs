//! Which processes are to be looked at: each when it is new, once more when it has its libraries, and from then on in turn.

use std::collections::{HashMap, HashSet, VecDeque};

/// How often a process is looked at in the first rounds that it is there: between fork() and exec() it runs another program, and at its start
/// it has no libraries yet.
const NEW_LOOKS: u8 = 2;

/// All others are looked at once in so many rounds.
const ROUNDS: usize = 32;

/// But no more of them in one round: they are looked at more seldom then.
const TURNS_MAX: usize = 16;

/// The processes that there are.
#[derive(Default)]
pub(super) struct Processes {
    known: HashMap<u32, Known>,
    /// The order in which they are looked at again.
    turn: VecDeque<u32>,
    /// How many of these have not been due in this cycle.
    left: usize,
    /// How often all have been due.
    pub(super) cycle: u64,
    /// Those whose turn it is. There are no more before these have been looked at: when a cycle ends, all have been.
    in_turn: VecDeque<u32>,
    /// Those that are new, whoever has waited longest first.
    new: VecDeque<u32>,
    /// One of these was looked at last: both have the same share of a round.
    was_new: bool,
}

#[derive(Default)]
struct Known {
    /// How often it has been looked at because it was new.
    looks: u8,
    /// It waits for that.
    waits: bool,
}

impl Processes {
    /// `there`: all.
    pub(super) fn begin_round(&mut self, there: &[u32]) {
        let alive: HashSet<u32> = there.iter().copied().collect();
        self.known.retain(|pid, _| alive.contains(pid));
        for pids in [&mut self.turn, &mut self.in_turn, &mut self.new] {
            pids.retain(|pid| alive.contains(pid));
        }
        self.left = self.left.min(self.turn.len());
        if self.in_turn.is_empty() {
            let turns = self.turn.len().div_ceil(ROUNDS).min(TURNS_MAX);
            self.in_turn = (0..turns).filter_map(|_| self.next()).collect();
        }
        for &pid in there {
            let is_first = !self.known.contains_key(&pid);
            let known = self.known.entry(pid).or_default();
            if is_first {
                self.turn.push_back(pid);
            }
            if known.looks < NEW_LOOKS && !known.waits {
                known.waits = true;
                self.new.push_back(pid);
            }
        }
    }

    /// The one that is to be looked at now, in this round.
    pub(super) fn next_due(&mut self) -> Option<u32> {
        self.was_new = !self.new.is_empty() && (!self.was_new || self.in_turn.is_empty());
        if !self.was_new {
            return self.in_turn.pop_front();
        }
        let pid = self.new.pop_front()?;
        if let Some(known) = self.known.get_mut(&pid) {
            (known.looks, known.waits) = (known.looks + 1, false);
        }
        Some(pid)
    }

    fn next(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.cycle += 1;
            self.left = self.turn.len();
        }
        let pid = self.turn.pop_front()?;
        self.turn.push_back(pid);
        self.left = self.left.saturating_sub(1);
        Some(pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that are looked at in one round, which may take as long as it likes.
    fn round(processes: &mut Processes, there: &[u32]) -> Vec<u32> {
        processes.begin_round(there);
        std::iter::from_fn(|| processes.next_due()).collect()
    }

    #[test]
    fn a_new_process_is_looked_at_twice_and_then_in_turn() {
        let mut processes = Processes::default();
        assert_eq!(round(&mut processes, &[1, 2]), [1, 2]);
        let second = round(&mut processes, &[1, 2]);
        assert!(second.ends_with(&[1, 2]), "{second:?}");
        let mut looked: Vec<u32> =
            (0..10).flat_map(|_| round(&mut processes, &[1, 2, 3])).filter(|&pid| pid != 3).collect();
        assert!(looked.len() <= 10, "one in a round: {looked:?}");
        looked.sort_unstable();
        looked.dedup();
        assert_eq!(looked, [1, 2]);
        assert!(processes.cycle > 2);
    }

    #[test]
    fn who_has_ended_is_forgotten() {
        let mut processes = Processes::default();
        round(&mut processes, &[1, 2, 3]);
        processes.begin_round(&[1, 2, 3]);
        assert!(round(&mut processes, &[]).is_empty());
        assert!(processes.known.is_empty() && processes.turn.is_empty());
        assert_eq!(round(&mut processes, &[3]), [3], "another one with its number");
    }

    #[test]
    fn many_processes_are_not_all_looked_at_at_once() {
        let mut processes = Processes::default();
        let many: Vec<u32> = (1..=5000).collect();
        round(&mut processes, &many);
        round(&mut processes, &many);
        assert_eq!(round(&mut processes, &many).len(), TURNS_MAX);
    }

    /// Somebody makes new processes faster than they are looked at.
    #[test]
    fn who_waits_is_looked_at_before_whoever_comes_later() {
        let mut processes = Processes::default();
        round(&mut processes, &[1]);
        round(&mut processes, &[1]);
        let mut looked = Vec::new();
        for first in (10_000..20_000).step_by(10) {
            let mut there: Vec<u32> = (first - 100..first + 10).collect();
            there.extend([1, 100_000]);
            processes.begin_round(&there);
            looked.extend((0..3).filter_map(|_| processes.next_due()));
        }
        assert!(looked.contains(&100_000), "it waits for ever");
        assert!(looked.iter().filter(|&&pid| pid == 1).count() > 2 && processes.cycle > 2, "nobody's turn comes");
    }
}
