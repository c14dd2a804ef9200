//! The text of mapping calls and of pages, and the table of executable memory.

use std::fmt::Write;

use super::Record;
use super::summary::TEXT_ROWS;
use crate::record::memory::{ExecutableMemory, Mapping, PageCounts, PageRecord};
use crate::text::escape;

impl Record for Mapping {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        let name = self.mapping_name.as_deref().map(escape);
        let what = match (&self.permissions, &name) {
            (Some(permissions), Some(name)) => format!(" {permissions} {name}"),
            (Some(permissions), None) => format!(" {permissions} anonymous"),
            (None, _) => String::new(),
        };
        let place = match (self.address, self.length) {
            (Some(address), Some(length)) => format!(" {address}-{:#x}", address.0.saturating_add(length)),
            (Some(address), None) => format!(" {address}"),
            _ => String::new(),
        };
        let result = match (&self.error, self.result) {
            (Some(error), _) => format!(" = {error}"),
            (None, Some(result)) if result != 0 => format!(" = {result}"),
            _ => String::new(),
        };
        let pages = self.pages.map(|pages| format!(", {}", pages_text(pages))).unwrap_or_default();
        writeln!(
            to,
            "[{}] {}: {}/{}{place}{what}{result}{pages}",
            self.head.timestamp.local_seconds(),
            self.call.word().to_uppercase(),
            escape(&self.comm),
            self.pid
        )
    }
}

fn pages_text(pages: PageCounts) -> String {
    let parts = [
        (pages.resident, "read at once"),
        (pages.read, "read afterwards"),
        (pages.untouched, "never used"),
        (pages.left_out, "left out"),
        (pages.gone, "gone"),
    ];
    let named: Vec<String> =
        parts.iter().filter(|(count, _)| *count != 0).map(|(count, what)| format!("{count} {what}")).collect();
    let unit = if pages.total == 1 { "page" } else { "pages" };
    format!("{} {unit}: {}", pages.total, named.join(", "))
}

impl Record for PageRecord {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        let name = self.mapping_name.as_deref().map_or_else(|| "anonymous".to_owned(), escape);
        let file = self.file.as_deref().map(|file| format!(" -> {file}")).unwrap_or_default();
        writeln!(
            to,
            "[{}] PAGE: {}/{} {} {} {} {name}{file}",
            self.head.timestamp.local_seconds(),
            self.pid,
            self.address,
            self.permissions.as_deref().unwrap_or("????"),
            self.trigger.word(),
            self.sha256.get(..16).unwrap_or(&self.sha256),
        )
    }
}

impl Record for ExecutableMemory {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "[{}] {} of {:.1} s on {}: {} calls made anonymous memory executable, {} of them in no row",
            self.head.timestamp.local_seconds(),
            if self.last { "LAST SUMMARY" } else { "SUMMARY" },
            self.interval_seconds,
            escape(&self.head.host),
            self.calls,
            self.nameless
        )?;
        if !self.processes.is_empty() {
            writeln!(
                to,
                "  {:>9} {:>9} {:>12}  {:<13} {:<8}  {:>7}  PROCESS",
                "COUNT", "TOTAL", "BYTES", "CALL", "WRITABLE", "PID"
            )?;
        }
        for row in self.processes.iter().take(TEXT_ROWS) {
            writeln!(
                to,
                "  {:>9} {:>9} {:>12}  {:<13} {:<8}  {:>7}  {}",
                row.count,
                row.total,
                row.total_bytes,
                row.call.word(),
                if row.writable { "yes" } else { "no" },
                row.pid,
                escape(row.exe.as_deref().unwrap_or(&row.comm))
            )?;
        }
        if self.processes.len() > TEXT_ROWS {
            writeln!(to, "  ... and {} rows more: --format json has them", self.processes.len() - TEXT_ROWS)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_is_told_of_pages() {
        let pages = PageCounts { total: 3, resident: 1, untouched: 2, ..PageCounts::default() };
        assert_eq!(pages_text(pages), "3 pages: 1 read at once, 2 never used");
        assert_eq!(pages_text(PageCounts { total: 1, gone: 1, ..PageCounts::default() }), "1 page: 1 gone");
    }
}
