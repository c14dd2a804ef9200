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
    /// How often each has been looked at because it was new.
    known: HashMap<u32, u8>,
    /// The order in which they are looked at again.
    turn: VecDeque<u32>,
    /// How many of these have not been looked at in this cycle.
    left: usize,
    /// How often all have been looked at.
    pub(super) cycle: u64,
}

impl Processes {
    /// The processes to look at in this round, out of `there`, which has all of them.
    pub(super) fn due(&mut self, there: &[u32]) -> Vec<u32> {
        let alive: HashSet<u32> = there.iter().copied().collect();
        self.known.retain(|pid, _| alive.contains(pid));
        self.turn.retain(|pid| alive.contains(pid));
        self.left = self.left.min(self.turn.len());
        let turns = self.turn.len().div_ceil(ROUNDS).min(TURNS_MAX);
        let mut due: Vec<u32> = (0..turns).filter_map(|_| self.next()).collect();
        for &pid in there {
            let looks = self.known.entry(pid).or_insert(0);
            if *looks == 0 {
                self.turn.push_back(pid);
            }
            if *looks < NEW_LOOKS {
                *looks += 1;
                due.push(pid);
            }
        }
        due
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

    #[test]
    fn a_new_process_is_looked_at_twice_and_then_in_turn() {
        let mut processes = Processes::default();
        assert_eq!(processes.due(&[1, 2]), [1, 2]);
        let second = processes.due(&[1, 2]);
        assert!(second.ends_with(&[1, 2]), "{second:?}");
        let mut looked: Vec<u32> = (0..10).flat_map(|_| processes.due(&[1, 2, 3])).filter(|&pid| pid != 3).collect();
        assert!(looked.len() <= 10, "one in a round: {looked:?}");
        looked.sort_unstable();
        looked.dedup();
        assert_eq!(looked, [1, 2]);
        assert!(processes.cycle > 2);
    }

    #[test]
    fn who_has_ended_is_forgotten() {
        let mut processes = Processes::default();
        processes.due(&[1, 2, 3]);
        assert!(processes.due(&[]).is_empty());
        assert!(processes.known.is_empty() && processes.turn.is_empty());
        assert_eq!(processes.due(&[3]), [3], "another one with its number");
    }

    #[test]
    fn many_processes_are_not_all_looked_at_at_once() {
        let mut processes = Processes::default();
        let many: Vec<u32> = (1..=5000).collect();
        processes.due(&many);
        processes.due(&many);
        assert_eq!(processes.due(&many).len(), TURNS_MAX);
    }
}
