//! The text of a summary, and of a heartbeat.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use super::Record;
use crate::record::lines::{self, InFile};
use crate::record::summary::{Heartbeat, Summary};
use crate::text::escape;

/// How many groups the text shows, most frequent first. JSON has all.
pub(super) const TEXT_ROWS: usize = 50;

impl Record for Summary {
    fn json(&self, known: &mut InFile) -> Result<Vec<u8>> {
        lines::summary(self, known)
    }

    fn write_text(&self, to: &mut String) -> std::fmt::Result {
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
        if !self.groups.is_empty() {
            writeln!(
                to,
                "  {:>9} {:>9}  {:<9} {:<13} {:<8}  {:<15}  {:<16}  PLACE",
                "COUNT", "TOTAL", "SIGNAL", "CODE", "END", "PROCESS", "SIGNATURE"
            )?;
        }
        for group in self.groups.iter().take(TEXT_ROWS) {
            writeln!(
                to,
                "  {:>9} {:>9}  {:<9} {:<13} {:<8}  {:<15}  {:<16}  {}{}",
                group.count,
                group.total,
                group.signal,
                group.code.as_deref().unwrap_or("-"),
                group.disposition.word(),
                escape(&group.comm),
                group.signature.as_deref().unwrap_or("-"),
                escape(&group.place()),
                if group.estimated { " (and others)" } else { "" }
            )?;
        }
        if self.groups.len() > TEXT_ROWS {
            writeln!(to, "  ... and {} groups more: --format json has them", self.groups.len() - TEXT_ROWS)?;
        }
        let list = |losses: &BTreeMap<String, u64>| {
            losses.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(to, "  In no group: {}; samples lost: {}", list(&self.losses), list(&self.sample_losses))
    }
}

impl Record for Heartbeat {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        let (time, host) = (self.head.timestamp.local_seconds(), escape(&self.head.host));
        writeln!(to, "[{time}] HEARTBEAT of {:.1} s on {host}: no signals, nothing lost", self.interval_seconds)
    }
}
