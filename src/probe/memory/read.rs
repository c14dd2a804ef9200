//! What the memory probe has counted, and what it is told while it runs.

use anyhow::{Context as _, Result, anyhow};
use libbpf_rs::{MapCore as _, MapFlags};

use super::{DROPS, Probe};
use crate::probe::abi::memory::{alert_from_bytes, alert_key_bytes, fl_alert, fl_alert_key, fl_counter, process_bytes};
use crate::probe::hook::Hook;
use crate::probe::losses::{self, Loss, Losses, RUNS_MISSED};

/// One number for each line of `enum fl_counter`, since the start, and the kernel's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records of calls and mappings handed to user space.
    pub calls: u64,
    /// Pages handed to user space.
    pub pages: u64,
    /// Where the whole machine is watched: calls that made anonymous memory executable.
    pub alerts: u64,
    /// What the kernel programs could not tell.
    pub losses: Losses,
}

impl Probe {
    /// Watches memory that can change by itself, or no more: pages that are executed for the first time, content that is
    /// dropped. Costs each page fault and each call of the machine a little, so it is on only while it can tell something.
    ///
    /// # Errors
    /// Where a tracepoint is not to be had.
    pub fn watch_changes(&self, wanted: bool) -> Result<()> {
        let mut links = self.state.borrow_mut();
        if !wanted {
            links.clear();
        } else if links.is_empty() {
            let mut hooks = vec![Hook::raw("fl_fetch", "page_fault_user")];
            if self.has("fl_lock") {
                hooks.push(Hook::syscall("fl_syscall", format!("sys_enter_{DROPS}")));
            }
            *links = self.attach_for_now(&hooks)?;
        }
        Ok(())
    }

    /// Tells the kernel programs what is known of a process that was there before them (`FL_PROCESS_*`).
    ///
    /// # Errors
    /// Where the table takes no more.
    pub fn know(&self, pid: u32, flags: u32) -> Result<()> {
        let processes = self.map("fl_processes")?;
        let what = || format!("failed to watch PID {pid}");
        processes.update(&pid.to_ne_bytes(), &process_bytes(flags), MapFlags::ANY).with_context(what)
    }

    /// What has been counted since the start.
    ///
    /// # Errors
    /// Where a map can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let count = |which: fl_counter| self.count(which.0);
        let table: &[Loss] = if self.plan.watch_all { &losses::EXECUTABLE_MEMORY } else { &losses::MEMORY };
        let ends_missed = count(fl_counter::FL_KPROBE_CALLS)?.saturating_sub(count(fl_counter::FL_KPROBE_RETURNS)?);
        Ok(Counters {
            calls: count(fl_counter::FL_CALLS)?,
            pages: count(fl_counter::FL_PAGES)?,
            alerts: count(fl_counter::FL_ALERTS)?,
            losses: self.losses(table)?.with(RUNS_MISSED, ends_missed),
        })
    }

    /// Anonymous memory that became executable, by process and call; where the whole machine is watched.
    ///
    /// # Errors
    /// Where the table can't be read.
    pub fn alerts(&self) -> Result<Vec<(fl_alert_key, fl_alert)>> {
        let what = "failed to read the alerts";
        let alerts = self.map("fl_alerts")?;
        let mut all = Vec::new();
        for key in alerts.keys() {
            if let Some(value) = alerts.lookup(&key, MapFlags::ANY).context(what)? {
                all.push(alert_from_bytes(&key, &value).ok_or_else(|| anyhow!("{what}: an entry of another size"))?);
            }
        }
        Ok(all)
    }

    /// Takes the entry of a process that has ended out of the table.
    ///
    /// # Errors
    /// Where the table can't be written.
    pub fn forget_alert(&self, key: &fl_alert_key) -> Result<()> {
        self.map("fl_alerts")?.delete(&alert_key_bytes(key)).context("failed to forget an alert")
    }
}
