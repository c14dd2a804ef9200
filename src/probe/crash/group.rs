//! A group of the kernel's table, and all of them at one time.

use std::rc::Rc;

use super::counts::Counts;
use crate::probe::abi::{Plain as _, fl_group, fl_group_key};

/// A group's row in `fl_groups`, and how many groups have had it: another group may have the row later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupId {
    /// Its index in `fl_groups`.
    pub row: u32,
    /// The groups in this row since the start, with this one.
    pub serial: u32,
}

/// One group at the time of reading.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Which one.
    pub id: GroupId,
    /// Its entry in the table of the kernel programs. To clone it costs nothing: there are thousands of them in each look.
    pub facts: Rc<fl_group>,
    /// Its events by processor, since it came.
    pub counts: Counts,
    /// Its events before it had left the table and came again; 0 as the kernel knows it.
    pub before: u64,
}

impl fl_group_key {
    /// Its bytes: equal keys have equal ones, as a key has no holes.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        self.bytes().to_vec()
    }
}

impl GroupId {
    /// Both in one number.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.row)
    }
}

impl Group {
    /// Its events since it came.
    pub(crate) fn total(&self) -> u64 {
        self.counts.total()
    }
}

/// All groups in the kernel's table, read at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    /// The groups.
    pub named: Vec<Group>,
    /// Events that found no group, by executable, user, signal and code.
    pub rests: Vec<Group>,
    /// Events that found no place there either, by signal and code.
    pub sums: Vec<Group>,
    /// Events that found none even there, because several processors took the last place at once.
    pub other: u64,
}

impl Groups {
    /// All events that are in the table.
    pub(crate) fn total(&self) -> u64 {
        self.ungrouped() + self.named.iter().map(Group::total).sum::<u64>()
    }

    /// Events without a group of their own.
    pub(crate) fn ungrouped(&self) -> u64 {
        self.other + self.rests.iter().chain(&self.sums).map(Group::total).sum::<u64>()
    }
}
