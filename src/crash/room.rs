//! The room in which samples wait for their names. It is bounded, and where it is full, the owner that takes most of it gives up names: its
//! oldest sample goes without, so that the records of one owner stay in order. Nothing here waits or names.

use std::collections::{HashMap, VecDeque};

use crate::naming::{Owner, Ticket};

/// How many samples wait at most. More stay in the ring for a moment.
const SAMPLES_MAX: usize = 256;

/// How much of stacks waits with them.
const STACKS_BYTES_MAX: usize = 8 << 20;

/// Samples that wait, each with the number of its job.
pub(super) struct Room<Sample> {
    /// None of them is empty.
    lines: HashMap<Owner, Line<Sample>>,
    count: usize,
    stack_bytes: usize,
}

/// The samples of one owner, in the order in which they came.
struct Line<Sample> {
    samples: VecDeque<Placed<Sample>>,
    stack_bytes: usize,
}

struct Placed<Sample> {
    ticket: Ticket,
    stack_bytes: usize,
    sample: Sample,
}

impl<Sample> Default for Room<Sample> {
    fn default() -> Self {
        Self { lines: HashMap::new(), count: 0, stack_bytes: 0 }
    }
}

impl<Sample> Room<Sample> {
    /// Is there room for one more?
    pub(super) fn has_room(&self) -> bool {
        self.count < SAMPLES_MAX && self.stack_bytes < STACKS_BYTES_MAX
    }

    /// Does nothing wait?
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// There may be more than there is room for. `stack_bytes`: of its stack.
    pub(super) fn add(&mut self, owner: Owner, ticket: Ticket, stack_bytes: usize, sample: Sample) {
        let line = self.lines.entry(owner).or_insert_with(|| Line { samples: VecDeque::new(), stack_bytes: 0 });
        line.samples.push_back(Placed { ticket, stack_bytes, sample });
        line.stack_bytes += stack_bytes;
        self.count += 1;
        self.stack_bytes += stack_bytes;
    }

    /// The sample of this number. `None` means that it waits no more.
    pub(super) fn take(&mut self, owner: &Owner, ticket: Ticket) -> Option<Sample> {
        let line = self.lines.get_mut(owner)?;
        let at = line.samples.iter().position(|placed| placed.ticket == ticket)?;
        let placed = line.samples.remove(at)?;
        line.stack_bytes -= placed.stack_bytes;
        if line.samples.is_empty() {
            self.lines.remove(owner);
        }
        self.count -= 1;
        self.stack_bytes -= placed.stack_bytes;
        Some(placed.sample)
    }

    /// The oldest sample of the owner that has most, if there are more than there is room for.
    pub(super) fn give_up(&mut self) -> Option<(Owner, Ticket, Sample)> {
        let by_bytes = match (self.count > SAMPLES_MAX, self.stack_bytes > STACKS_BYTES_MAX) {
            (true, _) => false,
            (_, true) => true,
            _ => return None,
        };
        let size = |line: &Line<Sample>| if by_bytes { line.stack_bytes } else { line.samples.len() };
        let first = |line: &Line<Sample>| line.samples.front().map(|placed| placed.ticket);
        // What lives on is before every death. Of those that have as much, the one whose first has waited longest.
        let turn =
            |owner: &Owner, line: &Line<Sample>| (*owner == Owner::Living, size(line), std::cmp::Reverse(first(line)));
        let most = self.lines.iter().max_by_key(|(owner, line)| turn(owner, line));
        let (owner, ticket) = most.and_then(|(owner, line)| Some((owner.clone(), first(line)?)))?;
        let sample = self.take(&owner, ticket)?;
        Some((owner, ticket, sample))
    }

    /// All of them, in the order in which they came.
    pub(super) fn clear(&mut self) -> Vec<Sample> {
        (self.count, self.stack_bytes) = (0, 0);
        let mut placed: Vec<_> = self.lines.drain().flat_map(|(_, line)| line.samples).collect();
        placed.sort_by_key(|placed| placed.ticket);
        placed.into_iter().map(|placed| placed.sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each sample is its number.
    fn full_of(owners: impl IntoIterator<Item = (u32, usize)>, stack_bytes: usize) -> Room<Ticket> {
        let mut room = Room::default();
        let mut last = 0;
        for (user, count) in owners {
            for _ in 0..count {
                last += 1;
                room.add(Owner::User(user), last, stack_bytes, last);
            }
        }
        room
    }

    fn given_up(room: &mut Room<Ticket>) -> Vec<(Owner, Ticket)> {
        std::iter::from_fn(|| room.give_up().map(|(owner, ticket, _)| (owner, ticket))).collect()
    }

    #[test]
    fn who_takes_most_of_the_room_gives_up_its_oldest() {
        let mut room = full_of([(1, 10), (2, SAMPLES_MAX - 10), (1, 2)], 100);
        assert!(!room.has_room());
        assert_eq!(given_up(&mut room), [(Owner::User(2), 11), (Owner::User(2), 12)]);
        assert!(!room.has_room() && room.give_up().is_none());
        assert_eq!(room.take(&Owner::User(1), 1), Some(1));
        assert!(room.has_room());
    }

    #[test]
    fn what_lives_on_gives_up_before_every_death() {
        let mut room = full_of([(1, SAMPLES_MAX - 1)], 100);
        room.add(Owner::Living, 1000, 100, 1000);
        room.add(Owner::User(1), 1001, 100, 1001);
        assert_eq!(given_up(&mut room), [(Owner::Living, 1000)]);
    }

    #[test]
    fn who_has_the_largest_stacks_gives_them_up() {
        let mut room = full_of([(1, 20)], 4096);
        room.add(Owner::User(2), 21, STACKS_BYTES_MAX - 4 * 4096, 21);
        assert!(!room.has_room());
        assert_eq!(given_up(&mut room), [(Owner::User(2), 21)]);
        assert!(room.has_room());
    }

    #[test]
    fn many_owners_take_no_more_room_than_one() {
        let mut room = Room::default();
        for user in 0..10_000 {
            room.add(Owner::User(user), user.into(), 100, user.into());
            let longest = u64::from(user).checked_sub(SAMPLES_MAX as u64);
            assert_eq!(room.give_up().map(|(_, ticket, _): (_, _, Ticket)| ticket), longest);
        }
        assert_eq!((room.count, room.lines.len()), (SAMPLES_MAX, SAMPLES_MAX));
    }

    #[test]
    fn what_is_taken_waits_no_more() {
        let mut room = full_of([(1, 3), (2, 1)], 100);
        assert_eq!(room.take(&Owner::User(1), 4), None, "it is another's");
        assert_eq!(room.take(&Owner::User(1), 2), Some(2));
        assert_eq!(room.take(&Owner::User(1), 2), None);
        assert_eq!(room.clear(), [1, 3, 4]);
        assert!(room.is_empty() && room.stack_bytes == 0 && room.lines.is_empty());
    }
}
