//! The text of a summary, and of a heartbeat.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use super::Record;
use crate::record::lines::{self, InFile};
use crate::record::summary::{Heartbeat, Summary};
use crate::terminal::{Column, Style, Table};
use crate::text::escape;

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
    fn json(&self, known: &mut InFile) -> Result<Vec<u8>> {
        lines::summary(self, known)
    }

    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let what = if self.interval.last { "LAST SUMMARY" } else { "SUMMARY" };
        writeln!(
            to,
            "[{}] {what} of {:.1} s on {}: {} signals in {} groups, {} filtered out",
            self.head.timestamp.local_seconds(),
            self.interval.interval_seconds,
            escape(&self.head.host),
            self.deliveries.matched,
            self.groups.len(),
            self.deliveries.filtered
        )?;
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
        let list = |losses: &BTreeMap<String, u64>| {
            losses.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
        };
        let lost = format!("In no group: {}; samples lost: {}", list(&self.losses), list(&self.sample_losses));
        writeln!(to, "  {}", style.wrapped(&lost, 2))
    }
}

impl Record for Heartbeat {
    fn json(&self, known: &mut InFile) -> Result<Vec<u8>> {
        lines::heartbeat(self, known)
    }

    fn write_text(&self, to: &mut String, _: Style) -> std::fmt::Result {
        let (time, host) = (self.head.timestamp.local_seconds(), escape(&self.head.host));
        writeln!(to, "[{time}] HEARTBEAT of {:.1} s on {host}: no signals, nothing lost", self.interval_seconds)
    }
}
