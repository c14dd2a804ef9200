//! The text of a summary, and of a heartbeat.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use anyhow::Result;

use super::Record;
use crate::record::lines::{self, InFile};
use crate::record::summary::{Heartbeat, Summary};
use crate::terminal::{Column, Style, Table};
use crate::text::{counted, escape};

/// How many groups the text shows, most frequent first. JSON has all.
pub(super) const TEXT_ROWS: usize = 50;

const COLUMNS: [Column; 7] = [
    Column { heading: "COUNT", width: 9, is_right: true, gap: 2, leaves: 0 },
    Column { heading: "TOTAL", width: 9, is_right: true, gap: 1, leaves: 2 },
    Column { heading: "SIGNAL", width: 9, is_right: false, gap: 2, leaves: 0 },
    Column { heading: "CODE", width: 13, is_right: false, gap: 1, leaves: 4 },
    Column { heading: "END", width: 8, is_right: false, gap: 1, leaves: 3 },
    Column { heading: "PROCESS", width: 15, is_right: false, gap: 2, leaves: 0 },
    Column { heading: "SIGNATURE", width: 16, is_right: false, gap: 2, leaves: 1 },
];

impl Record for Summary {
    fn json<'a>(&self, known: impl FnOnce() -> &'a mut InFile) -> Result<Vec<u8>> {
        lines::summary(self, known())
    }

    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let what = if self.interval.last { "LAST SUMMARY" } else { "SUMMARY" };
        let head = format!(
            "[{}] {what} of {:.1} s on {}: {} in {}, {} filtered out",
            style.time(self.head.timestamp),
            self.interval.interval_seconds,
            escape(&self.head.host),
            counted(self.deliveries.matched, "signal"),
            counted(self.groups.len() as u64, "group"),
            self.deliveries.filtered
        );
        writeln!(to, "{}", style.wrapped(&head, 2))?;
        let table = Table::new(&COLUMNS, "PLACE", style);
        if !self.groups.is_empty() {
            writeln!(to, "{}", table.headings())?;
        }
        for group in self.groups.iter().take(TEXT_ROWS) {
            let cells = [
                group.count.to_string(),
                group.total.to_string(),
                group.signal.clone(),
                group.code.clone().unwrap_or_else(|| "-".to_owned()),
                group.disposition.word().to_owned(),
                escape(&group.comm),
                group.signature.clone().unwrap_or_else(|| "-".to_owned()),
            ];
            let others = if group.estimated { " (and others)" } else { "" };
            writeln!(to, "{}", table.line(&cells, &(escape(&group.place()) + others)))?;
        }
        if self.groups.len() > TEXT_ROWS {
            writeln!(to, "  ... and {} groups more: --format json has them", self.groups.len() - TEXT_ROWS)?;
        }
        let lost = [("in no group", &self.losses), ("samples lost", &self.sample_losses)];
        write_losses(to, style, &lost.map(|(what, losses)| (what, list_losses(losses, !style.hides_zeros()))))
    }
}

/// Counters by reason: `ring_full 0, runs_missed 2`.
pub(crate) fn list_losses<R: Display>(losses: &BTreeMap<R, u64>, with_zeros: bool) -> String {
    let shown = losses.iter().filter(|(_, count)| with_zeros || **count != 0);
    shown.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
}

/// A line of lists of counters, each with what it counts; without those that are empty.
pub(super) fn write_losses(to: &mut String, style: Style, lists: &[(&str, String)]) -> std::fmt::Result {
    let lists = lists.iter().filter(|(_, list)| !list.is_empty());
    let text = lists.map(|(what, list)| format!("{what}: {list}")).collect::<Vec<_>>().join("; ");
    let Some(first) = text.get(..1) else { return Ok(()) };
    writeln!(to, "  {}{}", first.to_uppercase(), style.wrapped(&text[1..], 4))
}

impl Record for Heartbeat {
    fn json<'a>(&self, known: impl FnOnce() -> &'a mut InFile) -> Result<Vec<u8>> {
        lines::heartbeat(self, known())
    }

    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let (time, host) = (style.time(self.head.timestamp), escape(&self.head.host));
        writeln!(to, "[{time}] HEARTBEAT of {:.1} s on {host}: no signals, nothing lost", self.interval_seconds)
    }
}
