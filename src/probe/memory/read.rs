//! Reads what the memory probe has counted, and writes to it while it runs.

use anyhow::{Context as _, Result};
use libbpf_rs::MapCore as _;

use super::Probe;
use super::calls::DROPS;
use crate::arch;
use crate::probe::abi::Plain as _;
use crate::probe::abi::memory::{fl_counter, fl_exec_mem, fl_exec_mem_key, fl_process};
use crate::probe::hook::Hook;
use crate::probe::losses::{self, Loss, Losses, RUNS_MISSED};
use crate::probe::table::TypedTable as _;

/// One number for each line of `enum fl_counter`, since the start, and the kernel's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Records of calls and mappings that were sent to user space.
    pub calls: u64,
    /// Pages that were sent to user space.
    pub pages: u64,
    /// Where the whole machine is watched: calls that made anonymous memory executable.
    pub executable_memory: u64,
    /// What the kernel programs could not report.
    pub losses: Losses,
}

impl Probe {
    /// Starts or stops watching memory that can change by itself: pages that are executed for the first time, content that is dropped.
    /// It costs each page fault and each call of the machine a little, so that it is on only while there is such memory.
    pub(crate) fn watch_changes(&self, wanted: bool) -> Result<()> {
        let mut links = self.state.borrow_mut();
        if !wanted {
            links.clear();
        } else if links.is_empty() {
            // Without the tracepoint, the timer alone reads what is executed for the first time.
            let mut hooks: Vec<Hook> =
                arch::PAGE_FAULT_TRACEPOINT.iter().map(|name| Hook::raw("fl_fetch", name)).collect();
            if self.has("fl_lock") {
                hooks.push(Hook::syscall("fl_sys_both", format!("sys_enter_{DROPS}")));
            }
            *links = self.attach_for_now(&hooks)?;
        }
        Ok(())
    }

    /// Adds a process that was there before the kernel programs to their table, with its flags (`FL_PROCESS_*`).
    pub(crate) fn know(&self, pid: u32, flags: u32) -> Result<()> {
        let processes = self.map("fl_processes")?;
        let what = || format!("failed to watch PID {pid}");
        processes.set(&pid, &fl_process { flags, ..fl_process::default() }).with_context(what)
    }

    /// The counters since the start.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let count = |which: fl_counter| self.count(which.0);
        let table: &[Loss] = if self.plan.executable_memory { &losses::EXECUTABLE_MEMORY } else { &losses::MEMORY };
        let ends_missed = count(fl_counter::FL_KPROBE_CALLS)?.saturating_sub(count(fl_counter::FL_KPROBE_RETURNS)?);
        Ok(Counters {
            calls: count(fl_counter::FL_CALLS)?,
            pages: count(fl_counter::FL_PAGES)?,
            executable_memory: count(fl_counter::FL_EXEC_MEMS)?,
            losses: self.losses(table)?.with(RUNS_MISSED, ends_missed),
        })
    }

    /// Anonymous memory that became executable, by process and call, if the whole machine is watched.
    pub(crate) fn executable_memory(&self) -> Result<Vec<(fl_exec_mem_key, fl_exec_mem)>> {
        let what = "failed to read the counts of executable memory";
        let rows = self.map("fl_exec_mems")?;
        let mut all = Vec::new();
        for key in rows.all_keys::<fl_exec_mem_key>() {
            let key = key.context(what)?;
            all.extend(rows.value(&key).context(what)?.map(|row| (key, row)));
        }
        Ok(all)
    }

    /// Removes the entry of a process that has ended.
    pub(crate) fn forget_executable_memory(&self, key: &fl_exec_mem_key) -> Result<()> {
        self.map("fl_exec_mems")?.delete(key.bytes()).context("failed to forget a count of executable memory")
    }
}
