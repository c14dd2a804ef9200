//! How much each user may have of what is kept for all.

use std::collections::HashMap;

/// Things of users, so many, and so many bytes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    count: usize,
    bytes: u64,
}

/// Space for things of a bounded number and size. A user other than root has at most half of it, all these users together three quarters.
pub(super) struct Room {
    count_max: usize,
    bytes_max: u64,
    taken: HashMap<u32, Taken>,
}

impl Room {
    pub(super) fn new(count_max: usize, bytes_max: u64) -> Self {
        Self { count_max, bytes_max, taken: HashMap::new() }
    }

    /// Is there room for one more of this user's, with so many bytes?
    pub(super) fn has(&self, user: u32, bytes: u64) -> bool {
        let fits = |whose: &dyn Fn(u32) -> bool, share: usize| {
            let theirs = self.taken.iter().filter(|(user, _)| whose(**user)).map(|(_, taken)| *taken);
            let sum = theirs.fold(Taken { count: 1, bytes }, |sum, taken| Taken {
                count: sum.count + taken.count,
                bytes: sum.bytes.saturating_add(taken.bytes),
            });
            sum.count <= self.count_max * share / 4 && sum.bytes <= self.bytes_max / 4 * share as u64
        };
        fits(&|_| true, 4) && (user == 0 || (fits(&|other| other != 0, 3) && fits(&|other| other == user, 2)))
    }

    pub(super) fn take(&mut self, user: u32, bytes: u64) {
        let taken = self.taken.entry(user).or_default();
        taken.count += 1;
        taken.bytes += bytes;
    }

    pub(super) fn give_back(&mut self, user: u32, bytes: u64) {
        let Some(taken) = self.taken.get_mut(&user) else { return };
        taken.count = taken.count.saturating_sub(1);
        taken.bytes = taken.bytes.saturating_sub(bytes);
        if *taken == Taken::default() {
            self.taken.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_room_for_others_and_all_users_for_root() {
        let mut room = Room::new(8, 800);
        let fill = |room: &mut Room, user: u32| {
            let before = room.taken.get(&user).copied().unwrap_or_default().count;
            while room.has(user, 10) {
                room.take(user, 10);
            }
            room.taken.get(&user).copied().unwrap_or_default().count - before
        };
        assert_eq!([1, 2, 3, 0].map(|user| fill(&mut room, user)), [4, 2, 0, 2]);
        room.give_back(1, 10);
        assert!(!room.has(1, 401) && room.has(3, 10), "as many bytes are bounded as well");
        for user in [1, 1, 1, 2, 2, 0, 0] {
            room.give_back(user, 10);
        }
        assert!(room.taken.is_empty());
        assert!(room.has(0, 800) && !room.has(0, 801) && room.has(1, 400) && !room.has(1, 401));
    }
}
