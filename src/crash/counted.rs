//! All that is counted by group, at one moment.

use std::collections::HashSet;
use std::rc::Rc;

use crate::probe::abi::fl_group_key;
use crate::probe::{Group, GroupId};

/// Events that found no group, since the last look.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    /// The executable, user, signal, code, disposition, and the name of the process that was first.
    pub key: fl_group_key,
    /// There was room to keep executables and users apart; false: the key has neither.
    pub is_named: bool,
    /// The row that the kernel counts it in, whose samples name it; `None` means that it had a group, without a sample.
    pub id: Option<GroupId>,
    /// Its deaths and other events.
    pub count: u64,
}

/// Everything that the kernel has counted, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// The groups, with those that have left and were not reported. The same list as long as nothing was counted.
    pub named: Rc<[Group]>,
    /// The groups that have had events since the last look, by their place in the list.
    pub grown: Vec<usize>,
    /// The groups that are no longer in the list since the last look.
    pub gone: Vec<GroupId>,
    /// Events that found no group, since the start.
    pub ungrouped: u64,
    /// What is new of them since the last look.
    pub rests: Vec<Rest>,
    /// Events of groups that have left and were reported, since the start.
    pub departed: u64,
    /// How many groups the kernel's table has.
    pub in_table: usize,
    /// The rows that the kernel has for what found no group.
    pub rows: Rc<[Group]>,
    /// Ends that the kernel has counted, and that are in no number: those that are still to be proved, and exits that are none.
    pub uncounted: u64,
    /// How many of these were exits that may be deaths, since the start.
    pub undecided: u64,
    /// Groups whose numbers are not exact.
    pub estimated: HashSet<GroupId>,
}

impl Counted {
    /// All events that the kernel has counted.
    pub(super) fn total(&self) -> u64 {
        self.ungrouped + self.departed + self.uncounted + self.named.iter().map(Group::total).sum::<u64>()
    }
}
