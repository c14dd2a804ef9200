//! A list of records: a line each.

use std::fmt::Write;

use serde::Serialize;

use super::line::Line;
use super::newest::Weigh;
use crate::output::{Record, escape};
use crate::record::crash::Disposition;

const HEADINGS: [&str; COLUMNS] = ["TIME", "HOST", "PID", "UID", "SIGNAL", "SIGNATURE", "EXECUTABLE", "WHERE"];
const COLUMNS: usize = 8;
/// Numbers stand at the right of their columns.
const NUMBERS: [usize; 2] = [2, 3];
const HOST: usize = 1;

/// What the table shows of a record.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row([Box<str>; COLUMNS]);

impl Row {
    /// The row of a record.
    pub(super) fn of(line: &Line<'_>) -> Self {
        let executable = line.exe.as_deref().map_or_else(|| format!("[{}]", escape(&line.comm)), escape);
        // What ended nothing is marked.
        let signal = match line.disposition {
            Disposition::Handled | Disposition::Ignored => format!("{} ({})", line.signal, line.disposition.word()),
            _ => line.signal.to_string(),
        };
        let place = line.instruction_symbol.as_deref().map_or_else(|| "-".to_owned(), escape);
        let cells = [
            line.timestamp.local_seconds(),
            escape(&line.host),
            line.pid.to_string(),
            line.uid.to_string(),
            escape(&signal),
            escape(&line.signature),
            executable,
            place,
        ];
        Self(cells.map(String::into_boxed_str))
    }
}

impl Weigh for Row {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.0.iter().map(|cell| cell.len()).sum::<usize>()
    }
}

/// Rows under their headings, and the host only where there are several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct List(pub Vec<Row>);

impl Record for List {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        let has_hosts = self.0.windows(2).any(|pair| pair[0].0[HOST] != pair[1].0[HOST]);
        let shown = || (0..COLUMNS).filter(|&column| has_hosts || column != HOST);
        let mut widths = HEADINGS.map(str::len);
        for row in &self.0 {
            for (width, cell) in widths.iter_mut().zip(&row.0) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headings: [Box<str>; COLUMNS] = HEADINGS.map(Box::from);
        for cells in std::iter::once(&headings).chain(self.0.iter().map(|row| &row.0)) {
            let mut line = String::new();
            for column in shown() {
                let (cell, width) = (&cells[column], widths[column]);
                if NUMBERS.contains(&column) {
                    write!(line, "{cell:>width$}  ")?;
                } else {
                    write!(line, "{cell:<width$}  ")?;
                }
            }
            writeln!(to, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::LINE;
    use super::*;

    fn row(line: &str) -> Row {
        Row::of(&serde_json::from_str(line).unwrap())
    }

    #[test]
    fn a_table_is_as_wide_as_what_is_in_it() {
        let other = LINE
            .replace("\"exe\":\"/usr/bin/myapp (deleted)\"", "\"exe\":null")
            .replace("\"instruction_symbol\":\"main+0x10\"", "\"instruction_symbol\":null")
            .replace("\"disposition\":\"fatal\"", "\"disposition\":\"handled\"")
            .replace("\"pid\":1234", "\"pid\":7");
        let text = List(vec![row(LINE), row(&other)]).text();
        assert_eq!(
            text,
            "TIME                  PID   UID  SIGNAL             SIGNATURE         EXECUTABLE                WHERE\n\
             2026-11-29 18:19:07  1234  1000  SIGSEGV            0123456789abcdef  /usr/bin/myapp (deleted)  main+0x10\n\
             2026-11-29 18:19:07     7  1000  SIGSEGV (handled)  0123456789abcdef  [my\"app]                  -\n"
        );
    }

    #[test]
    fn several_hosts_are_shown_and_nothing_forges_a_line() {
        let other = LINE.replace("web-1", "web-2\\n\\u001b[2J");
        let text = List(vec![row(LINE), row(&other)]).text();
        assert!(text.contains("HOST") && text.contains("web-2\\n\\x1b[2J"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
