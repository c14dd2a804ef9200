//! `--watch-all`: anonymous memory that becomes executable, anywhere on the machine, counted in the kernel. No dumps.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use procfs::process::Process;

use super::record::Call;
use crate::hex::Hex;
use crate::host;
use crate::output::{Record, SCHEMA, Timestamp, Writer, boottime_ns, escape, lossy};
use crate::probe::Ring;
use crate::probe::abi::memory::{fl_alert, fl_alert_key};
use crate::probe::losses::ALERT_TABLE_FULL;
use crate::probe::memory::Probe;
use crate::session::{BATCH, End, Reader};

/// How many rows the text shows. JSON has all.
const TEXT_ROWS: usize = 50;

/// What was counted in one interval. Fields as in docs/output.md.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ExecutableMemory {
    /// Always `executable_memory`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// See [`SCHEMA`].
    pub schema: u32,
    /// The interval's end.
    pub timestamp: Timestamp,
    /// This machine's name.
    pub host: String,
    /// The interval's length.
    pub interval_seconds: f64,
    /// Nothing follows: the run is over, and `processes` has those without calls in this interval, too.
    #[serde(rename = "final")]
    pub last: bool,
    /// By process and call, most calls first.
    pub processes: Vec<Executable>,
    /// Calls in this interval: the sum of all `processes[].count` and of `nameless`.
    pub calls: u64,
    /// Those that found no room in the table.
    pub nameless: u64,
}

/// One process and one kind of call.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Executable {
    /// As the host numbers it.
    pub pid: u32,
    /// Its name when it was first seen.
    pub comm: String,
    /// The executable; None: the process was gone when we looked.
    pub exe: Option<String>,
    /// The real user id.
    pub uid: u32,
    /// `mmap`, `mprotect`, `pkey_mprotect`.
    pub call: Call,
    /// Writable and executable at once was asked for.
    pub writable: bool,
    /// Calls in this interval.
    pub count: u64,
    /// Calls since the start.
    pub total: u64,
    /// Bytes since the start; the same memory counts each time.
    pub total_bytes: u64,
    /// The first one's time.
    pub first_seen: Timestamp,
    /// The last one's.
    pub last_seen: Timestamp,
    /// The last one's address.
    pub last_address: Hex,
}

type Key = (u32, u64, u32, bool);

/// Between two looks at the kernel's table.
pub struct Ledger {
    host: String,
    since: Instant,
    /// What was told of each entry: calls, and the executable as it was first seen.
    told: HashMap<Key, (u64, Option<String>)>,
    told_nameless: u64,
    total: u64,
}

impl Ledger {
    /// A ledger that begins now.
    pub fn new() -> Self {
        Self { host: host::name(), since: Instant::now(), told: HashMap::new(), told_nameless: 0, total: 0 }
    }

    /// What came since the last look. Processes that have ended are taken out of the kernel's table: it has room for
    /// those that live.
    ///
    /// # Errors
    /// Where a table or a clock can't be read.
    pub fn look(&mut self, probe: &Probe, last: bool) -> Result<ExecutableMemory> {
        let mut processes = Vec::new();
        let mut calls = 0;
        for (key, alert) in probe.alerts()? {
            let own: Key = (key.pid, key.start_boottime_ns, key.call.0, key.writable != 0);
            let is_alive = start_ticks(key.pid).is_some_and(|start| start == ticks(key.start_boottime_ns));
            let (before, exe) = self.told.entry(own).or_insert_with(|| (0, is_alive.then(|| exe(key.pid)).flatten()));
            let count = alert.count.saturating_sub(*before);
            *before = alert.count;
            calls += count;
            if count != 0 || last {
                processes.push(row(&key, &alert, exe.clone(), count)?);
            }
            if !is_alive {
                probe.forget_alert(&key)?;
                self.told.remove(&own);
            }
        }
        self.total += calls;
        let counters = probe.counters()?;
        let all_nameless = counters.losses.get(ALERT_TABLE_FULL);
        let nameless = all_nameless - self.told_nameless;
        self.told_nameless = all_nameless;
        processes.sort_by(|one, other| other.count.cmp(&one.count).then(one.pid.cmp(&other.pid)));
        let now = Instant::now();
        let interval = now - std::mem::replace(&mut self.since, now);
        Ok(ExecutableMemory {
            kind: "executable_memory",
            schema: SCHEMA,
            timestamp: Timestamp::from_boottime(boottime_ns()?)?,
            host: self.host.clone(),
            interval_seconds: (interval.as_millis() as f64) / 1000.0,
            last,
            processes,
            calls: calls + nameless,
            nameless,
        })
    }

    /// Calls since the start that have a name.
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

fn row(key: &fl_alert_key, alert: &fl_alert, exe: Option<String>, count: u64) -> Result<Executable> {
    Ok(Executable {
        pid: key.pid,
        comm: lossy(&alert.comm.map(|byte| byte as u8)),
        exe,
        uid: alert.uid,
        call: Call::from(key.call),
        writable: key.writable != 0,
        count,
        total: alert.count,
        total_bytes: alert.bytes,
        first_seen: Timestamp::from_boottime(alert.first_ns)?,
        last_seen: Timestamp::from_boottime(alert.last_ns)?,
        last_address: Hex(alert.address),
    })
}

/// When a process began, in ticks since the boot, as /proc has it. None: it is gone.
fn start_ticks(pid: u32) -> Option<u64> {
    Some(Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?.starttime)
}

fn ticks(boottime_ns: u64) -> u64 {
    boottime_ns / (1_000_000_000 / procfs::ticks_per_second())
}

fn exe(pid: u32) -> Option<String> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| path.to_string_lossy().into_owned())
}

impl Record for ExecutableMemory {
    fn text(&self) -> String {
        let mut text = format!(
            "[{}] {} of {:.1} s on {}: {} calls made anonymous memory executable, {} of them in no row\n",
            self.timestamp.local_seconds(),
            if self.last { "LAST SUMMARY" } else { "SUMMARY" },
            self.interval_seconds,
            escape(&self.host),
            self.calls,
            self.nameless
        );
        if !self.processes.is_empty() {
            text += &format!(
                "  {:>9} {:>9} {:>12}  {:<13} {:<8}  {:>7}  PROCESS\n",
                "COUNT", "TOTAL", "BYTES", "CALL", "WRITABLE", "PID"
            );
        }
        for row in self.processes.iter().take(TEXT_ROWS) {
            text += &format!(
                "  {:>9} {:>9} {:>12}  {:<13} {:<8}  {:>7}  {}\n",
                row.count,
                row.total,
                row.total_bytes,
                row.call.word(),
                if row.writable { "yes" } else { "no" },
                row.pid,
                escape(row.exe.as_deref().unwrap_or(&row.comm))
            );
        }
        if self.processes.len() > TEXT_ROWS {
            text += &format!("  ... and {} rows more: --format json has them\n", self.processes.len() - TEXT_ROWS);
        }
        text
    }
}

/// What a run of `--watch-all` reads and writes.
pub(super) struct Reading<'run> {
    probe: &'run Probe,
    /// Nothing comes through it.
    ring: Ring<'run>,
    ledger: Ledger,
    writer: Writer,
    interval: Duration,
}

impl<'run> Reading<'run> {
    /// Begins to read `probe`.
    ///
    /// # Errors
    /// Where the ring can't be mapped.
    pub(super) fn new(probe: &'run Probe, writer: Writer, interval: Duration) -> Result<Self> {
        Ok(Self { probe, ring: probe.ring(|_| {})?, ledger: Ledger::new(), writer, interval })
    }

    fn tell(&mut self, last: bool) -> Result<()> {
        self.writer.write(&self.ledger.look(self.probe, last)?)?;
        self.writer.flush()
    }
}

impl Reader for Reading<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    fn drain(&mut self) -> Result<usize> {
        self.ring.take(BATCH)
    }

    fn next_tick(&self, last: Instant) -> Option<Instant> {
        last.checked_add(self.interval)
    }

    fn tick(&mut self) -> Result<()> {
        self.tell(false)
    }

    fn finish(&mut self) -> Result<End> {
        self.tell(true)?;
        let counters = self.probe.counters()?;
        let tally = format!(
            "{} calls made anonymous memory executable, {} of them in no row; lost: {}",
            counters.alerts,
            counters.losses.get(ALERT_TABLE_FULL),
            counters.losses.line()
        );
        let lost = counters.losses.lost_any();
        Ok(End { tally: Some(tally), lost, incomplete: lost })
    }
}
