//! `memory --watch-all` and `agent --exec-memory`: anonymous memory that becomes executable, anywhere on the machine, counted in
//! the kernel. No dumps.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use procfs::process::Stat;

use super::record::{Executable, ExecutableMemory, MappingCall};
use crate::hex::Hex;
use crate::host;
use crate::ledger::{Ledger, Run};
use crate::output::{Dropped, ExecutableLabels, Timestamp, Writer, boottime_ns};
use crate::probe::abi::memory::{Sample, fl_exec_mem, fl_exec_mem_key};
use crate::probe::losses::{EXEC_MEM_TABLE_FULL, EXECUTABLE_MEMORY};
use crate::probe::memory::Probe;
use crate::probe::{Losses, Ring};
use crate::session::{BATCH, End, Reader};
use crate::text;

type Key = (u32, u64, u32, bool);

fn key(key: &fl_exec_mem_key) -> Key {
    (key.pid, key.start_boottime_ns, key.call.0, key.writable != 0)
}

/// One look at the kernel's table.
pub(crate) struct Look {
    entries: Vec<Entry>,
    /// What each entry has had since the look before.
    grown: Vec<u64>,
    losses: Losses,
    boottime_ns: u64,
    last: bool,
}

/// An entry of the kernel's table.
struct Entry {
    key: fl_exec_mem_key,
    counted: fl_exec_mem,
    exe: Option<String>,
    /// The process had ended before the table was read: nothing is added any more.
    is_final: bool,
}

impl Look {
    /// What came since the look before, for metrics.
    pub(crate) fn grown(&self) -> impl Iterator<Item = (ExecutableLabels, u64)> {
        self.entries.iter().zip(&self.grown).map(|(Entry { key, counted, .. }, count)| {
            let comm = text::name(&counted.comm);
            (ExecutableLabels::new(comm, MappingCall::from(key.call).word(), key.writable != 0), *count)
        })
    }

    /// What was lost on the way since the start, for metrics.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = Dropped> {
        self.losses.dropped()
    }
}

/// What the last summary reported: calls of each entry, and of those that found no room in the table.
struct LastSummary {
    run: Run,
    counts: HashMap<Key, u64>,
    nameless: u64,
}

/// What is known of an entry from the look before.
struct EarlierEntry {
    count: u64,
    /// The executable, as it was when the entry was first seen.
    exe: Option<String>,
    has_ended: bool,
}

/// Reads the kernel's table of processes that make anonymous memory executable.
pub(crate) struct Executables<P: Borrow<Probe>> {
    probe: P,
    reported: LastSummary,
    seen: HashMap<Key, EarlierEntry>,
}

impl<P: Borrow<Probe>> Executables<P> {
    /// Begins now.
    pub(crate) fn new(probe: P) -> Result<Self> {
        let reported = LastSummary { run: Run::new(boottime_ns()?)?, counts: HashMap::new(), nameless: 0 };
        Ok(Self { probe, reported, seen: HashMap::new() })
    }

    /// The probe that is read.
    pub(crate) fn probe(&self) -> &Probe {
        self.probe.borrow()
    }
}

impl<P: Borrow<Probe>> Ledger for Executables<P> {
    type Look = Look;
    type Summary = ExecutableMemory;

    fn look(&mut self, last: bool) -> Result<Look> {
        let probe = self.probe.borrow();
        let mut look = Look {
            entries: Vec::new(),
            grown: Vec::new(),
            losses: Losses::none(&EXECUTABLE_MEMORY),
            boottime_ns: boottime_ns()?,
            last,
        };
        for (entry, counted) in probe.executable_memory()? {
            let is_alive = start_ticks(entry.pid).is_some_and(|start| start == ticks(entry.start_boottime_ns));
            let exe = || is_alive.then(|| exe(entry.pid)).flatten();
            let seen =
                self.seen.entry(key(&entry)).or_insert_with(|| EarlierEntry { count: 0, exe: exe(), has_ended: false });
            look.grown.push(counted.count.saturating_sub(seen.count));
            look.entries.push(Entry { key: entry, counted, exe: seen.exe.clone(), is_final: seen.has_ended });
            (seen.count, seen.has_ended) = (counted.count, !is_alive);
        }
        look.losses = probe.counters()?.losses;
        Ok(look)
    }

    fn tell(&mut self, look: &Look) -> Result<ExecutableMemory> {
        self.reported.summarize(look)
    }

    /// Reported entries of processes that have ended leave the kernel's table, so that there is room for those that live.
    fn commit(&mut self, look: Look) -> Result<()> {
        for entry in look.entries.iter().filter(|entry| entry.is_final) {
            self.probe.borrow().forget_executable_memory(&entry.key)?;
            self.seen.remove(&key(&entry.key));
        }
        self.reported.commit(&look);
        Ok(())
    }
}

impl LastSummary {
    fn summarize(&self, look: &Look) -> Result<ExecutableMemory> {
        let mut processes = Vec::new();
        let mut calls = 0;
        for entry in &look.entries {
            let before = self.counts.get(&key(&entry.key)).copied().unwrap_or(0);
            let count = entry.counted.count.saturating_sub(before);
            calls += count;
            if count != 0 || look.last {
                processes.push(row(entry, count)?);
            }
        }
        let nameless = look.losses.get(EXEC_MEM_TABLE_FULL) - self.nameless;
        processes.sort_by(|one, other| other.count.cmp(&one.count).then(one.pid.cmp(&other.pid)));
        let (head, interval) = self.run.interval("executable_memory", look.boottime_ns, look.last)?;
        Ok(ExecutableMemory {
            head,
            interval_seconds: interval.interval_seconds,
            last: interval.last,
            processes,
            calls: calls + nameless,
            nameless,
        })
    }

    fn commit(&mut self, look: &Look) {
        let stays = look.entries.iter().filter(|entry| !entry.is_final);
        self.counts = stays.map(|entry| (key(&entry.key), entry.counted.count)).collect();
        self.nameless = look.losses.get(EXEC_MEM_TABLE_FULL);
        self.run.commit(look.boottime_ns);
    }
}

fn row(Entry { key, counted, exe, .. }: &Entry, count: u64) -> Result<Executable> {
    Ok(Executable {
        pid: key.pid,
        comm: text::name(&counted.comm),
        exe: exe.clone(),
        uid: counted.uid,
        call: MappingCall::from(key.call),
        writable: key.writable != 0,
        count,
        total: counted.count,
        total_bytes: counted.bytes,
        first_seen: Timestamp::from_boottime(counted.first_ns)?,
        last_seen: Timestamp::from_boottime(counted.last_ns)?,
        last_address: Hex(counted.address),
    })
}

/// When a process began, in ticks since the boot, as /proc has it. `None` means that it is gone.
fn start_ticks(pid: u32) -> Option<u64> {
    Some(host::of_process::<Stat>(pid, "stat").ok()?.starttime)
}

fn ticks(boottime_ns: u64) -> u64 {
    boottime_ns / (1_000_000_000 / procfs::ticks_per_second())
}

fn exe(pid: u32) -> Option<String> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| path.to_string_lossy().into_owned())
}

/// What a run of `--watch-all` reads and writes.
pub(super) struct Reading<'run> {
    /// Nothing comes through it.
    ring: Ring<Sample>,
    executables: Executables<&'run Probe>,
    writer: Writer,
    interval: Duration,
}

impl<'run> Reading<'run> {
    /// Begins to read `probe`.
    pub(super) fn new(probe: &'run Probe, writer: Writer, interval: Duration) -> Result<Self> {
        Ok(Self { ring: probe.ring()?, executables: Executables::new(probe)?, writer, interval })
    }
}

impl Reader for Reading<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    fn drain(&mut self) -> Result<usize> {
        Ok(self.ring.take(BATCH)?.len())
    }

    fn next_tick(&self, last: Instant) -> Option<Instant> {
        last.checked_add(self.interval)
    }

    fn tick(&mut self) -> Result<()> {
        self.writer.report(&mut self.executables, false)
    }

    fn finish(&mut self) -> Result<End> {
        self.writer.report(&mut self.executables, true)?;
        let mut counters = self.executables.probe().counters()?;
        self.writer.end(|reason, records| counters.losses.add(reason, records))?;
        let tally = format!(
            "{} calls made anonymous memory executable, {} of them in no row; lost: {}",
            counters.executable_memory,
            counters.losses.get(EXEC_MEM_TABLE_FULL),
            counters.losses.line()
        );
        let lost = counters.losses.lost_any();
        Ok(End { tally: Some(tally), lost, incomplete: lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::abi::memory::fl_call;

    fn entry(pid: u32, count: u64, is_final: bool) -> Entry {
        let key = fl_exec_mem_key {
            pid,
            start_boottime_ns: 1,
            call: fl_call::FL_CALL_MPROTECT,
            ..fl_exec_mem_key::default()
        };
        let counted = fl_exec_mem { count, first_ns: 1, last_ns: 2, ..fl_exec_mem::default() };
        Entry { key, counted, exe: None, is_final }
    }

    fn look(entries: Vec<Entry>, nameless: u64) -> Look {
        let losses = Losses::none(&EXECUTABLE_MEMORY).with(EXEC_MEM_TABLE_FULL, nameless);
        Look { grown: vec![0; entries.len()], entries, losses, boottime_ns: 3_500_000_000, last: false }
    }

    fn reported() -> LastSummary {
        LastSummary { run: Run::new(1_000_000_000).unwrap(), counts: HashMap::new(), nameless: 0 }
    }

    #[test]
    fn what_could_not_be_written_is_told_with_the_next() {
        let mut reported = reported();
        assert_eq!(reported.summarize(&look(vec![entry(1, 3, false)], 1)).unwrap().calls, 4);
        let second = look(vec![entry(1, 5, true), entry(2, 1, false)], 1);
        let summary = reported.summarize(&second).unwrap();
        assert_eq!((summary.calls, summary.nameless, summary.interval_seconds), (7, 1, 2.5));
        assert_eq!((summary.processes[0].count, summary.processes[1].count), (5, 1), "most calls first");
        reported.commit(&second);
        let third = reported.summarize(&look(vec![entry(2, 4, false)], 1)).unwrap();
        assert_eq!((third.calls, third.processes[0].count, third.processes[0].total), (3, 3, 4));
    }

    #[test]
    fn the_last_one_has_all_that_are_in_the_table() {
        let mut reported = reported();
        reported.commit(&look(vec![entry(1, 3, false)], 0));
        let quiet = look(vec![entry(1, 3, false)], 0);
        assert!(reported.summarize(&quiet).unwrap().processes.is_empty());
        let summary = reported.summarize(&Look { last: true, ..quiet }).unwrap();
        assert_eq!((summary.processes[0].count, summary.processes[0].total, summary.calls), (0, 3, 0));
    }
}
