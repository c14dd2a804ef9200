//! The text of signals, and of tasks that begin and end: one line each; and the table of who sent what to whom.

use std::fmt::{self, Write};

use super::Record;
use super::summary::{TEXT_ROWS, list_losses, write_losses};
use crate::diagnosis::sent;
use crate::record::signal::{Exec, Exit, Fork, Signal, SignalSummary, Task};
use crate::siginfo::SIGKILL;
use crate::terminal::{Column, Style, Table, fitting_path, length};
use crate::text::{counted, escape};

/// The columns of the table of pairs.
const COLUMNS: [Column; 6] = [
    Column { heading: "COUNT", width: 9, is_right: true, gap: 2, leaves: 0 },
    Column { heading: "TOTAL", width: 9, is_right: true, gap: 1, leaves: 1 },
    Column { heading: "SIGNAL", width: 11, is_right: false, gap: 2, leaves: 0 },
    Column { heading: "SENDER", width: 15, is_right: false, gap: 2, leaves: 0 },
    Column { heading: "TARGET", width: 15, is_right: false, gap: 2, leaves: 0 },
    Column { heading: "RESULT", width: 15, is_right: false, gap: 2, leaves: 0 },
];

/// `[bash/1234]`
fn party(comm: Option<&str>, pid: Option<u32>) -> String {
    let comm = comm.map_or_else(|| "?".to_owned(), escape);
    pid.map_or_else(|| format!("[{comm}]"), |pid| format!("[{comm}/{pid}]"))
}

impl Record for Signal {
    fn write_text(&self, to: &mut String, _: Style) -> fmt::Result {
        let sender = self.sender.as_ref();
        let from = sender.map_or_else(|| "[kernel]".to_owned(), |it| party(Some(&it.comm), Some(it.pid)));
        let target = party(self.target.comm.as_deref(), self.target.pid);
        let clock = self.head.timestamp.local_clock();
        write!(to, "[{clock}] SIGNAL: {} ({}) {from} -> {target}", self.signal, self.signal_number)?;
        let mut more = Vec::new();
        more.extend(self.code.clone());
        if self.scope == "thread" {
            more.push(self.target.tid.map_or_else(|| "thread".to_owned(), |tid| format!("thread {tid}")));
        }
        more.extend(self.result.filter(|result| *result != "delivered").map(|result| result.replace('_', " ")));
        if let Some(oom) = &self.oom {
            more.push(oom.text());
        }
        more.extend(self.reason.as_ref().map(|reason| escape(&sent::text(reason, self.signal_number == SIGKILL))));
        if !more.is_empty() {
            write!(to, " {}", more.join(", "))?;
        }
        writeln!(to)
    }
}

/// The words behind a thread.
fn thread(is_thread: bool) -> &'static str {
    if is_thread { " thread" } else { "" }
}

impl Record for Fork {
    fn write_text(&self, to: &mut String, _: Style) -> fmt::Result {
        let Task { pid, tgid, ppid, comm, .. } = &self.task;
        let (clock, comm, thread) = (self.head.timestamp.local_clock(), escape(comm), thread(self.is_thread));
        writeln!(to, "[{clock}] FORK: {comm} (pid={pid}, tgid={tgid}, ppid={ppid}){thread}")
    }
}

impl Record for Exec {
    fn write_text(&self, to: &mut String, style: Style) -> fmt::Result {
        let exe = self.exe.as_deref().map_or_else(|| "unknown".to_owned(), escape);
        let (clock, comm, pid) = (self.head.timestamp.local_clock(), escape(&self.comm), self.pid);
        let before = format!("[{clock}] EXEC: {comm} (pid={pid}, tgid={pid}) ");
        writeln!(to, "{before}{}", fitting_path(&exe, style.room_behind(length(&before))))
    }
}

impl Record for Exit {
    fn write_text(&self, to: &mut String, _: Style) -> fmt::Result {
        let how = match (&self.signal, self.exit_code) {
            (Some(signal), _) if self.core_dumped => format!(" {signal}, core dumped"),
            (Some(signal), _) => format!(" {signal}"),
            (None, Some(code)) => format!(" code {code}"),
            (None, None) => String::new(),
        };
        let Task { pid, tgid, comm, .. } = &self.task;
        let (clock, comm, thread) = (self.head.timestamp.local_clock(), escape(comm), thread(self.is_thread));
        writeln!(to, "[{clock}] EXIT: {comm} (pid={pid}, tgid={tgid}){thread}{how}")
    }
}

impl Record for SignalSummary {
    fn write_text(&self, to: &mut String, style: Style) -> fmt::Result {
        let what = if self.interval.last { "LAST SUMMARY" } else { "SUMMARY" };
        let head = format!(
            "[{}] {what} of {:.1} s on {}: {} between {}, {} filtered out",
            style.time(self.head.timestamp),
            self.interval.interval_seconds,
            escape(&self.head.host),
            counted(self.deliveries.matched, "signal"),
            counted(self.pairs.len() as u64, "pair"),
            self.deliveries.filtered
        );
        writeln!(to, "{}", style.wrapped(&head, 2))?;
        let table = Table::new(&COLUMNS, "", style);
        if !self.pairs.is_empty() {
            writeln!(to, "{}", table.headings())?;
        }
        for pair in self.pairs.iter().take(TEXT_ROWS) {
            let cells = [
                pair.count.to_string(),
                pair.total.to_string(),
                pair.signal.to_string(),
                pair.sender.as_deref().map_or_else(|| "(kernel)".to_owned(), escape),
                escape(&pair.target),
                pair.result.unwrap_or("-").replace('_', " "),
            ];
            writeln!(to, "{}", table.line(&cells, ""))?;
        }
        if self.pairs.len() > TEXT_ROWS {
            writeln!(to, "  ... and {} pairs more: --format json has them", self.pairs.len() - TEXT_ROWS)?;
        }
        if let Some(tasks) = &self.processes {
            writeln!(
                to,
                "  Processes: {} forks, {} execs, {} exits; threads: {} new, {} ended",
                tasks.forks, tasks.execs, tasks.exits, tasks.threads, tasks.thread_exits
            )?;
        }
        write_losses(to, style, &[("in no pair", list_losses(&self.losses, !style.hides_zeros()))])
    }
}
