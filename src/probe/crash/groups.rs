//! Reads the counts by group. They are never reset, so that nothing is lost between two reads.

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys::{BPF_STACK_BUILD_ID_VALID, bpf_stack_build_id};
use libbpf_rs::{MapCore, MapFlags};

use super::{GroupTable, Probe};
use crate::probe::abi::{Plain as _, fl_group};
use crate::probe::object::Loaded;
use crate::probe::table::TypedTable as _;

/// One group at the time of reading.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Its index in `fl_groups`.
    pub id: u32,
    /// Its entry in the table of the kernel programs.
    pub facts: fl_group,
    /// Its events by processor, since the start.
    pub counts: Vec<u64>,
}

impl Group {
    /// Its events since the start.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// All groups, read at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    /// The groups that have an id of their own.
    pub named: Vec<Group>,
    /// Events without a group of their own, because the table was full.
    pub other: u64,
}

impl Groups {
    /// All events that have been counted.
    pub(crate) fn total(&self) -> u64 {
        self.other + self.named.iter().map(Group::total).sum::<u64>()
    }
}

/// One frame of a group's exemplar stack: `struct bpf_stack_build_id`, include/uapi/linux/bpf.h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StackFrame {
    /// 20 bytes, padded with zeros where it is shorter.
    pub build_id: [u8; 20],
    /// The offset in the file.
    pub offset: u64,
}

/// Puts the ids `0..groups` into the queue from which the kernel programs take them.
pub(super) fn hand_out_ids(object: &Loaded, groups: u32) -> Result<()> {
    let free = object.map("fl_free_groups")?;
    for id in 0..groups {
        free.update(&[], id.bytes(), MapFlags::ANY).context("failed to fill table `fl_free_groups`")?;
    }
    Ok(())
}

impl Probe {
    /// The room for groups; 0: the plan has none.
    pub(crate) fn group_limit(&self) -> u32 {
        self.plan.groups.map_or(0, |GroupTable { groups, .. }| groups)
    }

    /// The counts by group since the start; empty if the plan has no groups.
    pub(crate) fn groups(&self) -> Result<Groups> {
        let what = "failed to read the groups";
        let mut all = Groups::default();
        let groups = self.group_limit();
        if groups == 0 {
            return Ok(all);
        }
        let (facts, counts) = (self.map("fl_groups")?, self.map("fl_group_counts")?);
        let mut entries = 0;
        for (key, value) in facts.lookup_batch(groups + 1, MapFlags::ANY, MapFlags::ANY).context(what)? {
            entries += 1;
            let id = u32::read(&key).with_context(|| format!("{what}: a key of another size"))?;
            if id == groups {
                all.other = counts.values::<u64>(&id).context(what)?.iter().sum();
                continue;
            }
            // It is in use, or just being made. A group with a count is complete: only then it is read.
            if fl_group::read(&value).is_none_or(|seen| seen.first_ns == 0) {
                continue;
            }
            let counts: Vec<u64> = counts.values(&id).context(what)?;
            if counts.iter().any(|count| *count != 0)
                && let Some(facts) = facts.value(&id).context(what)?
            {
                all.named.push(Group { id, facts, counts });
            }
        }
        // libbpf-rs ends the batch silently if the kernel refuses to go on.
        if entries != groups + 1 {
            bail!("{what}: {entries} of {} were to be had", groups + 1);
        }
        Ok(all)
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
