//! The text of mapping calls and of pages, and the table of executable memory.

use std::fmt::Write;

use super::Record;
use super::summary::TEXT_ROWS;
use crate::record::memory::{ExecutableMemory, Mapping, PageCounts, PageRecord};
use crate::terminal::{CONTINUED, Column, Style, Table, fitting_path, length};
use crate::text::escape;

/// The columns of the table of processes.
const COLUMNS: [Column; 6] = [
    Column { heading: "COUNT", width: 9, is_right: true, gap: 2, leaves: 0 },
    Column { heading: "TOTAL", width: 9, is_right: true, gap: 1, leaves: 2 },
    Column { heading: "BYTES", width: 12, is_right: true, gap: 1, leaves: 1 },
    Column { heading: "CALL", width: 13, is_right: false, gap: 2, leaves: 3 },
    Column { heading: "WRITABLE", width: 8, is_right: false, gap: 1, leaves: 0 },
    Column { heading: "PID", width: 7, is_right: true, gap: 2, leaves: 0 },
];

impl Record for Mapping {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
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
        let before = format!(
            "[{}] {}: {}/{}{place}",
            self.head.timestamp.local_clock(),
            self.call.word().to_uppercase(),
            escape(&self.comm),
            self.pid
        );
        let behind = format!("{result}{pages}");
        let Some(permissions) = &self.permissions else { return writeln!(to, "{before}{behind}") };
        let name = self.mapping_name.as_deref().map_or_else(|| "anonymous".to_owned(), escape);
        write_named(to, style, &format!("{before} {permissions}"), &name, &behind)
    }
}

/// A line with the name of a mapping in it; if the line has no room for the name, the name is in a second one.
fn write_named(to: &mut String, style: Style, before: &str, name: &str, behind: &str) -> std::fmt::Result {
    if style.fits(length(before) + 1 + length(name) + length(behind)) {
        return writeln!(to, "{before} {name}{behind}");
    }
    let room = style.room_behind(CONTINUED + length(behind));
    writeln!(to, "{before}\n{:CONTINUED$}{}{behind}", "", fitting_path(name, room))
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
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let name = self.mapping_name.as_deref().map_or_else(|| "anonymous".to_owned(), escape);
        let file = self.file.as_deref().map(|file| format!(" -> {file}")).unwrap_or_default();
        let before = format!(
            "[{}] PAGE: {}/{} {} {} {}",
            self.head.timestamp.local_clock(),
            self.pid,
            self.address,
            self.permissions.as_deref().unwrap_or("????"),
            self.trigger.word(),
            self.sha256.get(..16).unwrap_or(&self.sha256),
        );
        write_named(to, style, &before, &name, &file)
    }
}

impl Record for ExecutableMemory {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let head = format!(
            "[{}] {} of {:.1} s on {}: {} calls made anonymous memory executable, {} of them in no row",
            style.time(self.head.timestamp),
            if self.last { "LAST SUMMARY" } else { "SUMMARY" },
            self.interval_seconds,
            escape(&self.head.host),
            self.calls,
            self.nameless
        );
        writeln!(to, "{}", style.wrapped(&head, 2))?;
        let table = Table::new(&COLUMNS, "PROCESS", style);
        if !self.processes.is_empty() {
            writeln!(to, "{}", table.headings())?;
        }
        for row in self.processes.iter().take(TEXT_ROWS) {
            let cells = [
                row.count.to_string(),
                row.total.to_string(),
                row.total_bytes.to_string(),
                row.call.word().to_owned(),
                if row.writable { "yes" } else { "no" }.to_owned(),
                row.pid.to_string(),
            ];
            let process = escape(row.exe.as_deref().unwrap_or(&row.comm));
            writeln!(to, "{}", table.line_of_path(&cells, &process))?;
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
