//! The table of groups as user space keeps it: groups that have left the kernel's table and are still to be reported, and events without a group.
//!
//! A group leaves when it is idle, or when somebody has much of the kernel's table (`leave.rs`). Its counts are told with the next summary,
//! and then go on in the ledger (`departed.rs`).

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::counted::{Counted, Rest};
use super::leave;
use super::ledger::GroupLedger;
use super::verdicts::{Moved, Verdict, Verdicts};
use crate::probe::abi::{fl_crash, fl_group, fl_group_key, fl_row_kind};
use crate::probe::crash::Probe;
use crate::probe::{Counts, Group, GroupId, StackFrame};
use crate::siginfo::{code_name, is_code_name};

/// Between two looks at whether somebody has much of the table. What a cgroup may take more than it keeps is for new groups meanwhile: 512 of
/// 4096.
pub(super) const RELIEF: Duration = Duration::from_millis(20);

/// A group that has left and was not reported.
struct Gone {
    group: Group,
    /// The kernel's stack of it, if no sample names it.
    stack: Vec<StackFrame>,
}

/// Is the code one of those that the kernel sends? A process can send itself any other.
fn has_name(key: &fl_group_key) -> bool {
    is_code_name(&code_name(u32::from(key.signal), key.si_code))
}

/// User space's part of the table.
pub(super) struct Table {
    room: u32,
    /// There are summaries, which report what the groups have counted.
    is_told: bool,
    gone: Vec<Gone>,
    /// The last group of each row that has left.
    dismissed: HashMap<u32, u32>,
    /// The counts of groups and rests at the last look.
    looked: HashMap<GroupId, u64>,
    rests: HashMap<Vec<u8>, Rest>,
    /// Groups that were folded since the last look.
    folded: Vec<GroupId>,
    /// Events that found no group, of rows that have left.
    ungrouped: u64,
    /// The counts of the last look, as long as no group has left since.
    seen: Option<Counted>,
    next_relief: Instant,
    made: u64,
    left: u64,
    is_pressed: bool,
    verdicts: Verdicts,
    /// How many groups have been made here, of ends that were counted in another one.
    made_here: u32,
    /// The ones of these with a number that is not exact.
    estimated: HashSet<GroupId>,
}

/// The row of groups that are not the kernel's.
const NO_ROW: u32 = u32::MAX;

impl Table {
    /// A table with room for so many groups; 0: there is none.
    pub(super) fn new(room: u32, is_told: bool) -> Self {
        Self {
            room,
            is_told,
            gone: Vec::new(),
            dismissed: HashMap::new(),
            looked: HashMap::new(),
            rests: HashMap::new(),
            folded: Vec::new(),
            ungrouped: 0,
            seen: None,
            next_relief: Instant::now(),
            made: 0,
            left: 0,
            is_pressed: false,
            verdicts: Verdicts::default(),
            made_here: 0,
            estimated: HashSet::new(),
        }
    }

    /// What is known of ends that were to be proved.
    pub(super) fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// An end that was to be proved has been judged: it was counted as `sample`. Returns the group that it is in now; `None` means none.
    pub(super) fn judge(&mut self, ledger: &mut GroupLedger, sample: &fl_crash, verdict: Verdict) -> Option<GroupId> {
        let group = group_of(sample).filter(|&group| group.row < self.room && self.is_in_table(group));
        self.verdicts.add(group, sample.cpu, verdict);
        self.seen = None;
        match verdict {
            Verdict::Caught => group_of(sample).filter(|&group| self.knows(group)),
            Verdict::Instead(key) => {
                group?;
                Some(self.add_moved(ledger, (key, sample.cpu as usize, 1), sample.timestamp_ns, sample.pid))
            }
            Verdict::Gone | Verdict::Undecided => None,
        }
    }

    /// Counts ends in a group of their own, as if it had left the kernel's table: the next summary reports it.
    fn add_moved(
        &mut self,
        ledger: &mut GroupLedger,
        (key, processor, many): Moved,
        last_ns: u64,
        last_pid: u32,
    ) -> GroupId {
        let bytes = key.to_bytes();
        let is_same = |gone: &&mut Gone| gone.group.id.row == NO_ROW && gone.group.facts.key.to_bytes() == bytes;
        if let Some(Gone { group, .. }) = self.gone.iter_mut().find(is_same) {
            group.counts = group.counts.plus(processor, many);
            let facts = Rc::make_mut(&mut group.facts);
            (facts.last_ns, facts.last_pid) = (last_ns, last_pid);
            return group.id;
        }
        self.made_here = self.made_here.wrapping_add(1);
        let id = GroupId { row: NO_ROW, serial: self.made_here };
        let facts =
            fl_group { key, first_ns: last_ns, last_ns, last_pid, stack_id: -1, samples: 1, ..fl_group::default() };
        let mut group = Group { id, facts: facts.into(), counts: Counts::default().plus(processor, many), before: 0 };
        ledger.welcome(&mut group, true);
        if !self.is_told {
            ledger.depart(&group);
        } else if self.has_room_for(&group) {
            self.gone.push(Gone { group, stack: Vec::new() });
        } else {
            self.fold(ledger, group);
        }
        id
    }

    /// Leaves in groups of ends that are to be proved what is theirs, and counts the rest where it belongs. Returns how many are in no number.
    fn split(&mut self, ledger: &mut GroupLedger, groups: &mut [Group], is_last: bool) -> u64 {
        let mut held = 0;
        for group in groups {
            let mut moved = Vec::new();
            held += self.verdicts.split(group, is_last, &mut moved);
            for moved in moved {
                let id = self.add_moved(ledger, moved, group.facts.last_ns, group.facts.last_pid);
                self.estimated.insert(id);
            }
        }
        held
    }

    /// Is this group in the kernel's table, or still to be reported?
    pub(super) fn knows(&self, id: GroupId) -> bool {
        self.dismissed.get(&id.row).is_none_or(|&last| id.serial > last)
            || self.gone.iter().any(|gone| gone.group.id == id)
    }

    /// The kernel's stack of a group's first event.
    pub(super) fn stack(&self, probe: &Probe, group: &Group) -> Result<Vec<StackFrame>> {
        match self.gone.iter().find(|gone| gone.group.id == group.id) {
            Some(gone) => Ok(gone.stack.clone()),
            None => probe.stack(group.facts.stack_id),
        }
    }

    /// Events that found no group, since the start.
    pub(super) fn ungrouped(&self, probe: &Probe) -> Result<u64> {
        Ok(self.ungrouped + probe.groups(false)?.ungrouped())
    }

    /// Everything that was counted. It is read again only if something was: `matched` is the kernel's count of all events, and
    /// an idle agent has nothing to do.
    /// `is_last`: nothing follows.
    pub(super) fn look(
        &mut self,
        probe: &Probe,
        ledger: &mut GroupLedger,
        matched: u64,
        is_last: bool,
    ) -> Result<Counted> {
        // A group is counted before `matched`, so that equal sums mean that nothing is missing.
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.total() == matched) {
            return Ok(seen.clone());
        }
        let before = self.ungrouped + ledger.departed() + self.gone.iter().map(|gone| gone.group.total()).sum::<u64>();
        let mut groups = probe.groups(false)?;
        // What was counted elsewhere since is in these numbers twice, and what is no death in none.
        if before + groups.total() < matched || self.verdicts.are_used() {
            groups = probe.groups(true)?;
        }
        let (in_table, ungrouped) = (groups.named.len(), self.ungrouped + groups.ungrouped());
        for rest in groups.rests.iter().chain(&groups.sums) {
            self.add_rest(rest);
        }
        let mut named = groups.named;
        let held = self.split(ledger, &mut named, is_last);
        named.extend(self.gone.iter().map(|gone| gone.group.clone()));
        named.iter_mut().for_each(|group| ledger.welcome(group, !self.looked.contains_key(&group.id)));
        let looked = named.iter().chain(&groups.rests).chain(&groups.sums).map(|group| (group.id, group.total()));
        let looked = std::mem::replace(&mut self.looked, looked.collect());
        let has_grown = |group: &Group| looked.get(&group.id) != Some(&group.total());
        let seen = Counted {
            named: named.into(),
            ungrouped,
            departed: ledger.departed(),
            in_table,
            rows: groups.rests.into(),
            uncounted: held + self.verdicts.silent(),
            undecided: self.verdicts.undecided(),
            ..Counted::default()
        };
        let is_estimated = |id: &GroupId| self.estimated.contains(id) || self.verdicts.is_estimated(*id);
        let estimated = seen.named.iter().map(|group| group.id).filter(is_estimated).collect();
        let seen = Counted { estimated, ..seen };
        self.seen = Some(seen.clone());
        let mut gone = std::mem::take(&mut self.folded);
        gone.extend(looked.keys().filter(|id| !self.looked.contains_key(id)));
        Ok(Counted {
            grown: (0..).zip(&*seen.named).filter(|(_, group)| has_grown(group)).map(|(at, _)| at).collect(),
            gone,
            rests: self.rests.drain().map(|(_, rest)| rest).collect(),
            ..seen
        })
    }

    /// What was new of a rest since the last look.
    fn add_rest(&mut self, rest: &Group) {
        let new = rest.total() - self.looked.get(&rest.id).copied().unwrap_or_default();
        self.looked.insert(rest.id, rest.total());
        self.add_events(rest.facts.key, Some(rest.id), new);
    }

    fn add_events(&mut self, key: fl_group_key, id: Option<GroupId>, count: u64) {
        if count == 0 {
            return;
        }
        let by = |kind, key: fl_group_key| fl_group_key { frames: 0, kind, comm: Default::default(), ..key };
        let named = by(fl_row_kind::FL_ROW_REST, key).to_bytes();
        let has_room = self.rests.len() < self.room as usize || self.rests.contains_key(&named);
        let is_named = key.kind != fl_row_kind::FL_ROW_SUM && has_room;
        // So few that they need no bound: a code that a process made up has no name.
        let nobodys = fl_group_key { exe_inode: 0, exe_device: 0, uid: 0, ..by(fl_row_kind::FL_ROW_SUM, key) };
        let nobodys = if has_name(&key) { nobodys } else { fl_group_key { si_code: 0, has_code: 2, ..nobodys } };
        let (by, key) = if is_named { (named, key) } else { (nobodys.to_bytes(), nobodys) };
        self.rests.entry(by).or_insert(Rest { key, is_named, id, count: 0 }).count += count;
    }

    /// The counts of `look` were reported: groups that had left are forgotten, and idle groups leave.
    pub(super) fn commit(
        &mut self,
        probe: &Probe,
        ledger: &mut GroupLedger,
        look: &Counted,
        now_ns: u64,
    ) -> Result<()> {
        let told: HashSet<GroupId> = look.named.iter().map(|group| group.id).collect();
        let (told, kept): (Vec<Gone>, Vec<Gone>) = self.gone.drain(..).partition(|gone| told.contains(&gone.group.id));
        self.gone = kept;
        for Gone { group, .. } in told {
            self.estimated.remove(&group.id);
            ledger.depart(&group);
            self.seen = None;
        }
        let live: Vec<&Group> =
            look.named.iter().filter(|group| group.id.row != NO_ROW && self.is_in_table(group.id)).collect();
        let rows: Vec<&Group> = look.rows.iter().filter(|row| self.is_in_table(row.id)).collect();
        let leaving = self.leaving(&live, &rows, now_ns);
        self.dismiss(probe, ledger, &leaving, &live)
    }

    fn leaving(&self, groups: &[&Group], rests: &[&Group], now_ns: u64) -> Vec<Group> {
        let mut leaving = leave::leaving(groups, self.room, now_ns);
        leaving.extend(leave::leaving(rests, self.room / 8, now_ns));
        leaving
    }

    fn is_in_table(&self, id: GroupId) -> bool {
        self.dismissed.get(&id.row).is_none_or(|&last| id.serial > last)
    }

    /// When the table is to be looked at again; `None` means that nobody has much of it.
    pub(super) fn next_relief(&self) -> Option<Instant> {
        self.is_pressed.then_some(self.next_relief)
    }

    /// Has groups leave if somebody has much of the table.
    pub(super) fn relieve(&mut self, probe: &Probe, ledger: &mut GroupLedger, now_ns: u64) -> Result<()> {
        if self.room == 0 || self.next_relief > Instant::now() {
            return Ok(());
        }
        let made = probe.groups_made()?;
        let is_new = made != self.made;
        self.made = made;
        if !(is_new || self.is_pressed) || leave::is_relaxed(made - self.left.min(made), self.room) {
            self.is_pressed = false;
            self.next_relief = Instant::now() + RELIEF;
            return Ok(());
        }
        let groups = probe.groups(false)?;
        let live: Vec<&Group> = groups.named.iter().collect();
        let leaving = self.leaving(&live, &groups.rests.iter().collect::<Vec<_>>(), now_ns);
        // It goes on for as long as groups come.
        self.is_pressed = is_new || !leaving.is_empty();
        self.dismiss(probe, ledger, &leaving, &live)?;
        self.next_relief = Instant::now() + RELIEF;
        Ok(())
    }

    /// Has groups and rests leave the kernel's table; `live` has all groups.
    fn dismiss(&mut self, probe: &Probe, ledger: &mut GroupLedger, leaving: &[Group], live: &[&Group]) -> Result<()> {
        // A group about which something is still to be proved stays meanwhile.
        let leaving: Vec<Group> = leaving.iter().filter(|group| !self.verdicts.is_pending(group)).cloned().collect();
        let leaving = &leaving[..];
        if leaving.is_empty() {
            return Ok(());
        }
        let ids: HashSet<GroupId> = leaving.iter().map(|group| group.id).collect();
        let kept = live.iter().filter(|group| !ids.contains(&group.id)).map(|group| group.facts.stack_id).collect();
        // Read before they leave, as nothing else names these.
        let unnamed = |group: &&Group| group.facts.samples == 0 && group.id.row < self.room && self.is_told;
        let mut stacks = HashMap::new();
        for group in leaving.iter().filter(unnamed) {
            stacks.insert(group.id, probe.stack(group.facts.stack_id)?);
        }
        for mut group in probe.dismiss(leaving, &kept)? {
            self.dismissed.insert(group.id.row, group.id.serial);
            self.seen = None;
            self.left += 1;
            if group.id.row > self.room {
                self.add_rest(&group);
                self.looked.remove(&group.id);
                self.ungrouped += group.total();
                ledger.forget(group.id);
                continue;
            }
            self.split(ledger, std::slice::from_mut(&mut group), true);
            self.verdicts.forget(group.id);
            let is_new = !self.looked.contains_key(&group.id);
            ledger.welcome(&mut group, is_new);
            if !self.is_told || ledger.told(group.id) == group.total() {
                ledger.depart(&group);
            } else if self.has_room_for(&group) {
                let stack = stacks.remove(&group.id).unwrap_or_default();
                self.gone.push(Gone { group, stack });
            } else {
                self.fold(ledger, group);
            }
        }
        Ok(())
    }

    /// Those with a record first.
    fn has_room_for(&self, group: &Group) -> bool {
        let room = self.room as usize;
        self.gone.len() < room / 4 || group.facts.samples > 0 && self.gone.len() < room / 2
    }

    /// More have left than a summary can hold: what was not reported of this one counts as events without a group.
    fn fold(&mut self, ledger: &mut GroupLedger, mut group: Group) {
        let told = ledger.told(group.id);
        self.ungrouped += group.total() - told;
        let looked = self.looked.remove(&group.id).unwrap_or_default();
        self.add_events(group.facts.key, None, group.total() - looked);
        self.folded.push(group.id);
        group.counts = [told].into_iter().collect();
        ledger.depart(&group);
    }
}

/// The group that a sample was counted in; `None` means that groups are off.
pub(super) fn group_of(sample: &fl_crash) -> Option<GroupId> {
    (sample.group != u32::MAX).then_some(GroupId { row: sample.group, serial: sample.group_serial })
}
