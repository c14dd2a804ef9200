//! Reads what the recorder has counted and kept.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use libbpf_rs::{MapCore as _, MapFlags};

use super::attach::FunctionHook;
use super::{Recorder, TaskCalls};
use crate::probe::abi::Plain as _;
use crate::probe::abi::call::{fl_counter, fl_own_limit};
use crate::probe::losses::{self, Losses, RUNS_MISSED};

/// What one has no place for is in the next: bpf/include/call_stack.bpf.h.
pub(super) const STACK_TABLES: [&str; 3] = ["fl_call_stacks0", "fl_call_stacks1", "fl_call_stacks2"];

/// The counters of the kernel programs, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of tasks that are not watched.
    pub filtered: u64,
    /// Calls that were recorded.
    pub calls: u64,
    /// Recorded calls that were seen to return.
    pub returns: u64,
    /// Tasks that got room.
    pub tasks: u64,
    /// Triggers that fired.
    pub triggers: u64,
    /// Calls that were sent when they ended.
    pub live: u64,
    /// Calls that were not recorded or not sent.
    pub losses: Losses,
}

impl Counters {
    /// Calls that were not recorded.
    pub fn unrecorded(&self) -> u64 {
        self.losses.get(RUNS_MISSED) + self.losses.get("task_table_full")
    }
}

impl Recorder {
    /// The last calls of this thread; `None` means that none are kept.
    pub fn task(&self, tid: u32) -> Result<Option<TaskCalls>> {
        let what = || format!("failed to read the calls of thread {tid}");
        let value = self.probe.map("fl_tasks")?.lookup(tid.bytes(), MapFlags::ANY).with_context(what)?;
        value.map(|bytes| self.read(&bytes).with_context(what)).transpose()
    }

    /// The last calls of all tasks that are kept, ended ones included.
    pub fn tasks(&self) -> Result<Vec<TaskCalls>> {
        let what = "failed to read the calls of all tasks";
        let map = self.probe.map("fl_tasks")?;
        // All in one batch: libbpf-rs takes a batch that is not full for the last one, and those of a hash table seldom are full.
        let entries = map.lookup_batch(map.max_entries(), MapFlags::ANY, MapFlags::ANY).context(what)?;
        entries.map(|(_, bytes)| self.read(&bytes).context(what)).collect()
    }

    fn read(&self, bytes: &[u8]) -> Result<TaskCalls> {
        TaskCalls::from_value(bytes, self.probe.plan.calls).ok_or_else(|| anyhow!("an entry of another size"))
    }

    /// The return addresses of a kernel stack, innermost first; `None` means that there is no stack with this number.
    pub fn stack(&self, id: i32) -> Option<Vec<u64>> {
        let (id, most) = (u32::try_from(id).ok()?, fl_own_limit::FL_LIMIT_STACKS.0);
        let (table, id) = (STACK_TABLES.get((id / most) as usize)?, id % most);
        let bytes = self.probe.map(table).ok()?.lookup(id.bytes(), MapFlags::ANY).ok()??;
        let frames = bytes.chunks_exact(size_of::<u64>()).filter_map(u64::read);
        Some(frames.take_while(|&frame| frame != 0).collect())
    }

    /// The counters since the start.
    pub fn counters(&self) -> Result<Counters> {
        let count = |which: fl_counter| self.probe.count(which.0);
        // One program may be attached to several hooks.
        let hooks = self.hooks.borrow();
        let programs: BTreeMap<u32, u64> = hooks.iter().filter_map(FunctionHook::runs_missed).collect();
        let hits: u64 = hooks.iter().map(FunctionHook::hits_missed).sum();
        Ok(Counters {
            filtered: count(fl_counter::FL_FILTERED)?,
            calls: count(fl_counter::FL_CALLS)?,
            returns: count(fl_counter::FL_RETURNS)?,
            tasks: count(fl_counter::FL_TASKS)?,
            triggers: count(fl_counter::FL_TRIGGERS)?,
            live: count(fl_counter::FL_LIVE)?,
            losses: self.probe.losses(&losses::CALL)?.with(RUNS_MISSED, programs.into_values().sum::<u64>() + hits),
        })
    }
}
