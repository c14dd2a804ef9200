//! Which groups leave the kernel's table: those that have been idle for long, and where somebody has much of the table, the longest idle ones of
//! theirs. Nothing here asks the kernel.

use std::collections::HashMap;

use crate::probe::Group;

/// A group without an event for so long leaves.
const IDLE_NS: u64 = 600 * 1_000_000_000;

/// The same where somebody has much of the table. A group that strikes more often stays, or each of its events would make it anew.
const PRESSED_NS: u64 = 1_000_000_000;

/// In smaller tables nobody has a share of their own.
const SHARED_ROOM: u32 = 256;

/// The part of the table that each may keep: an executable, a user, a cgroup, and root or all other users together, as `enum fl_share` has
/// them. Half of what the kernel lets them take, so that there is room for what comes until the next look.
const KEPT: [u32; 4] = [16, 4, 4, 3];

/// Has nobody so much of the table that it is worth a look?
pub(super) fn is_relaxed(rows: u64, room: u32) -> bool {
    room < SHARED_ROOM || rows <= u64::from(room / KEPT[0])
}

/// The groups that leave a table of `room` rows, at `now_ns` of CLOCK_BOOTTIME.
pub(super) fn leaving(groups: &[&Group], room: u32, now_ns: u64) -> Vec<Group> {
    let idle_ns = |group: &Group| now_ns.saturating_sub(group.facts.last_ns);
    if is_relaxed(groups.len() as u64, room) && groups.iter().all(|group| idle_ns(group) < IDLE_NS) {
        return Vec::new();
    }
    let mut taken: HashMap<&[u32], u32> = HashMap::new();
    for payer in groups.iter().flat_map(|group| payers(group)) {
        *taken.entry(payer).or_default() += 1;
    }
    let mut by_age = groups.to_vec();
    by_age.sort_by_key(|group| group.facts.last_ns);
    let mut leaving = Vec::new();
    for group in by_age {
        let idle_ns = idle_ns(group);
        let is_pressed = payers(group).zip(KEPT).enumerate().any(|(kind, (payer, part))| {
            let (rows, kept) = (taken.get(payer).copied().unwrap_or_default(), room / part);
            // Where most is taken, even groups that strike leave, but not for others of the same executable.
            rows > kept && idle_ns >= PRESSED_NS || kind != 0 && rows > kept + kept / 2
        });
        if idle_ns < IDLE_NS && !(is_pressed && room >= SHARED_ROOM) {
            continue;
        }
        for payer in payers(group) {
            taken.entry(payer).and_modify(|rows| *rows -= 1);
        }
        leaving.push(group.clone());
    }
    leaving
}

/// Who has taken the row, each by the counters that it was taken from.
fn payers(group: &Group) -> impl Iterator<Item = &[u32]> {
    group.facts.cells.chunks_exact(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::GroupId;
    use crate::probe::abi::fl_group;

    const NOW_NS: u64 = 1_000_000_000_000;

    /// A group of this executable, user and cgroup.
    fn group(row: u32, payers: [u32; 3], idle_ns: u64) -> Group {
        let [executable, user, cgroup] = payers.map(|payer| payer * 2);
        let cells = [executable, executable, user + 1000, user, cgroup + 2000, cgroup, 3000, 3000];
        let facts = fl_group { cells, last_ns: NOW_NS - idle_ns, first_ns: 1, ..fl_group::default() };
        Group { id: GroupId { row, serial: 1 }, facts: facts.into(), counts: [1].into_iter().collect(), before: 0 }
    }

    fn leaving(groups: &[Group], room: u32, now_ns: u64) -> Vec<Group> {
        super::leaving(&groups.iter().collect::<Vec<_>>(), room, now_ns)
    }

    fn rows(leaving: &[Group]) -> Vec<u32> {
        leaving.iter().map(|group| group.id.row).collect()
    }

    #[test]
    fn what_is_idle_leaves() {
        let groups = [group(0, [1, 1, 1], IDLE_NS), group(1, [1, 1, 1], IDLE_NS - 1)];
        assert_eq!(rows(&leaving(&groups, 4096, NOW_NS)), [0]);
    }

    #[test]
    fn an_executable_with_many_groups_keeps_those_that_strike() {
        let many: Vec<Group> = (0..300).map(|row| group(row, [1, row, row], u64::from(row) * 10_000_000)).collect();
        let left = leaving(&many, 4096, NOW_NS);
        assert_eq!(left.len(), 300 - 4096 / 16);
        assert_eq!(rows(&left)[0], 299, "the one that was idle for longest");
        let striking: Vec<Group> = (0..300).map(|row| group(row, [1, row, row], 0)).collect();
        assert!(leaving(&striking, 4096, NOW_NS).is_empty());
    }

    #[test]
    fn a_user_with_most_of_the_table_gives_way_whatever_it_does() {
        let striking: Vec<Group> = (0..2000).map(|row| group(row, [row, 1, row], 0)).collect();
        assert_eq!(leaving(&striking, 4096, NOW_NS).len(), 2000 - 1536);
        let other = [striking, vec![group(5000, [5000, 2, 5000], 0)]].concat();
        assert!(!rows(&leaving(&other, 4096, NOW_NS)).contains(&5000), "another user's stays");
    }

    #[test]
    fn in_a_small_table_nobody_is_pressed() {
        let all: Vec<Group> = (0..255).map(|row| group(row, [1, 1, 1], PRESSED_NS)).collect();
        assert!(leaving(&all, 255, NOW_NS).is_empty());
        assert!(is_relaxed(255, 255) && is_relaxed(256, 4096) && !is_relaxed(257, 4096));
    }
}
