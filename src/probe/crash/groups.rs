//! Reads the counts by group, and has groups leave the table. While a group is there its counts are never reset, so that nothing is lost
//! between two reads.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys::{BPF_STACK_BUILD_ID_VALID, bpf_stack_build_id};
use libbpf_rs::{MapCore, MapFlags};

use super::columns::Columns;
use super::counts::Counts;
use super::group::{Group, GroupId, Groups};
use super::rows::{KernelRows, Layout, Reader, Shared};
use super::{GroupTable, Probe};
use crate::probe::abi::{Plain as _, fl_counter, fl_group};
use crate::probe::object::Loaded;
use crate::probe::table::TypedTable as _;
use crate::time::boottime_ns;

/// What is kept between two readings.
#[derive(Default)]
pub(super) struct State {
    /// `None` means that nothing was read so far.
    tables: Option<Tables>,
    reader: Reader,
}

/// The tables that user space maps.
struct Tables {
    groups: Shared<fl_group>,
    /// The times of their last events.
    times: Shared<u64>,
    /// `None` means that each processor has its own counts, which only the kernel can read.
    columns: Option<Columns>,
}

/// One frame of a group's exemplar stack: `struct bpf_stack_build_id`, include/uapi/linux/bpf.h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StackFrame {
    /// 20 bytes, padded with zeros where it is shorter.
    pub build_id: [u8; 20],
    /// The offset in the file.
    pub offset: u64,
}

/// Fills the queues from which the kernel programs take the ids of groups, rests and sums.
pub(super) fn hand_out_ids(object: &Loaded, table: GroupTable, sums: u32) -> Result<()> {
    let rests = table.groups + 1..table.groups + 1 + table.rests();
    let sums = rests.end..rests.end + sums;
    for (name, ids) in [("fl_free_groups", 0..table.groups), ("fl_free_rests", rests), ("fl_free_sums", sums)] {
        let free = object.map(name)?;
        for id in ids {
            free.update(&[], id.bytes(), MapFlags::ANY).with_context(|| format!("failed to fill table `{name}`"))?;
        }
    }
    Ok(())
}

impl Probe {
    /// The room for groups; 0: the plan has none.
    pub(crate) fn group_limit(&self) -> u32 {
        self.plan.groups.map_or(0, |GroupTable { groups, .. }| groups)
    }

    /// How many groups and rests were new since the start.
    pub(crate) fn groups_made(&self) -> Result<u64> {
        self.count(fl_counter::FL_GROUPS_MADE.0)
    }

    /// The groups that are in the kernel's table, with their counts; empty if the plan has no groups. `all`: also those are read again
    /// that seem to have had no event since the last time.
    pub(crate) fn groups(&self, all: bool) -> Result<Groups> {
        let what = "failed to read the groups";
        let Some(table @ GroupTable { groups, .. }) = self.plan.groups else { return Ok(Groups::default()) };
        let layout = Layout { groups, first_sum: groups + 1 + table.rests(), rows: self.plan.rows() };
        let counts = self.map("fl_group_counts")?;
        // Before the rows: one that is made meanwhile is found at the next reading.
        let made = self.groups_made()?;
        let mut state = self.state.groups.borrow_mut();
        let State { tables, reader } = &mut *state;
        let Tables { groups, times, columns } = match tables {
            Some(tables) => tables,
            None => tables.insert(Tables {
                groups: Shared::map(&self.map("fl_groups")?)?,
                times: Shared::map(&self.map("fl_group_times")?)?,
                columns: Columns::of(&counts, layout.rows)?,
            }),
        };
        let columns = columns.as_ref();
        let counts = |row| match columns {
            Some(columns) => Ok(columns.counts(row)),
            None => Ok(counts.values::<u64>(&row)?.into_iter().collect()),
        };
        let rows = KernelRows { groups, times, counts: &counts, made };
        reader.read(&rows, layout, boottime_ns()?, all).context(what)
    }

    /// Has these groups leave the kernel's table, and returns them with all that they have counted: their next event makes them anew.
    ///
    /// Nothing is lost: first no program finds them any more, then the kernel waits for the programs that have found them before, and then
    /// they are read for the last time.
    /// `kept`: stacks of groups that stay.
    pub(crate) fn dismiss(&self, leaving: &[Group], kept: &HashSet<i32>) -> Result<Vec<Group>> {
        let what = "failed to have groups leave the table";
        if leaving.is_empty() {
            return Ok(Vec::new());
        }
        let ids = self.map("fl_group_ids")?;
        for group in leaving {
            ids.delete(group.facts.hash.bytes()).context(what)?;
        }
        // What processors remember of places is older than this number, and is not used again.
        let (departures, first) = (self.map(".bss.departures")?, 0_u32);
        let before = departures.value::<u32>(&first).context(what)?.unwrap_or_default();
        departures.set(&first, &before.wrapping_add(1)).context(what)?;
        let behind = self.map("fl_behind_gate")?;
        self.map("fl_gate")?.set(&first, &behind.as_fd().as_raw_fd()).context(what)?;
        let left = leaving.iter().map(|group| self.take_out(group.id)).collect::<Result<Vec<_>>>().context(what)?;
        self.state.groups.borrow_mut().reader.forget(left.iter().map(|group| group.id.row));
        self.give_back_shares(&left).context(what)?;
        let mut stacks: HashSet<i32> = left.iter().map(|group| group.facts.stack_id).collect();
        stacks.retain(|stack| !kept.contains(stack));
        for stack in stacks.into_iter().filter_map(|stack| u32::try_from(stack).ok()) {
            // It may be gone with another group of the same stack.
            let _ = self.map("fl_stacks")?.delete(stack.bytes());
        }
        let limit = self.group_limit();
        let (groups, rests) = (self.map("fl_free_groups")?, self.map("fl_free_rests")?);
        for group in &left {
            let free = if group.id.row < limit { &groups } else { &rests };
            free.update(&[], group.id.row.bytes(), MapFlags::ANY).context(what)?;
        }
        Ok(left)
    }

    /// Reads a group that no program can find, and empties its row for the next one.
    fn take_out(&self, id: GroupId) -> Result<Group> {
        let facts = self.map("fl_groups")?.value::<fl_group>(&id.row)?.context("a row is not there")?.into();
        Ok(Group { id, facts, counts: self.take_counts(id.row)?, before: 0 })
    }

    fn take_counts(&self, row: u32) -> Result<Counts> {
        let state = self.state.groups.borrow();
        if let Some(columns) = state.tables.as_ref().and_then(|tables| tables.columns.as_ref()) {
            let counts = columns.counts(row);
            columns.clear(row);
            return Ok(counts);
        }
        let counts = self.map("fl_group_counts")?;
        let by_cpu: Vec<u64> = counts.values(&row)?;
        let zeros = vec![0_u64.bytes().to_vec(); by_cpu.len()];
        counts.update_percpu(row.bytes(), &zeros, MapFlags::ANY)?;
        Ok(by_cpu.into_iter().collect())
    }

    fn give_back_shares(&self, left: &[Group]) -> Result<()> {
        let back = self.map("fl_shares_back")?;
        // Two cells are in a value: fl_share_at() in the program.
        let mut cells: BTreeMap<u32, [u32; 2]> = BTreeMap::new();
        for cell in left.iter().flat_map(|group| group.facts.cells) {
            let [even, odd] = cells.entry(cell / 2).or_default();
            *(if cell % 2 == 0 { even } else { odd }) += 1;
        }
        for (at, rows) in cells {
            let before: [u32; 2] = back.value(&at)?.unwrap_or_default();
            let after = [before[0].wrapping_add(rows[0]), before[1].wrapping_add(rows[1])];
            back.set(&at, &after)?;
        }
        Ok(())
    }

    /// The stack of a group's first event, innermost frame first, up to the first frame without a build id; empty if there is none.
    pub(crate) fn stack(&self, id: i32) -> Result<Vec<StackFrame>> {
        const BYTES: usize = size_of::<bpf_stack_build_id>();
        let Ok(id) = u32::try_from(id) else { return Ok(Vec::new()) };
        let value = self.map("fl_stacks")?.lookup(id.bytes(), MapFlags::ANY).context("failed to read a stack")?;
        let value = value.unwrap_or_default();
        let frames = value.chunks_exact(BYTES).map_while(|frame| {
            let status = u32::from_ne_bytes(frame[..4].try_into().ok()?);
            let build_id = frame[4..24].try_into().ok()?;
            let offset = u64::from_ne_bytes(frame[24..].try_into().ok()?);
            // The kernel does not check that the mapping it found begins below the address: such an offset is below 0.
            (status == BPF_STACK_BUILD_ID_VALID && offset.cast_signed() >= 0).then_some(StackFrame { build_id, offset })
        });
        Ok(frames.collect())
    }
}
