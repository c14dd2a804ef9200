//! A list of records: a line each.

use std::fmt::Write;

use serde::Serialize;
use serde_json::value::RawValue;

use super::line::Line;
use super::newest::Weigh;
use crate::output::{Record, escape};
use crate::record::crash::{Disposition, Frame};
use crate::record::summary::{self, says_something};
use crate::terminal::{Column, Style, Table, length, shorten_path};

/// The columns, as wide as their headings: a list makes them as wide as what is in them.
const COLUMNS: [Column; 7] = [
    column("TIME", false, 0),
    column("HOST", false, 1),
    column("PID", true, 0),
    column("UID", true, 3),
    column("SIGNAL", false, 0),
    column("SIGNATURE", false, 2),
    column("EXECUTABLE", false, 0),
];
const TIME: usize = 0;
const HOST: usize = 1;
const PLACE: &str = "PLACE";
const EXECUTABLE: usize = 6;

/// How wide the executables are at most on a terminal that lacks room: their paths lose their beginnings.
const EXECUTABLE_WIDTH: usize = 24;

const fn column(heading: &'static str, is_right: bool, leaves: u8) -> Column {
    Column { heading, width: heading.len(), is_right, gap: 2, leaves }
}

/// What the table shows of a record.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    cells: [Box<str>; COLUMNS.len()],
    place: Box<str>,
    /// The zone of its time.
    zone: Box<str>,
}

impl Row {
    /// The row of a record.
    pub(super) fn of(line: &Line<'_>) -> Self {
        let executable = line.exe.as_deref().map_or_else(|| format!("[{}]", escape(&line.comm)), escape);
        // What ended nothing is marked.
        let signal = match line.disposition {
            Disposition::Handled | Disposition::Ignored => format!("{} ({})", line.signal, line.disposition.word()),
            _ => line.signal.to_string(),
        };
        let cells = [
            line.timestamp.local_seconds(),
            escape(&line.host),
            line.pid.to_string(),
            line.uid.to_string(),
            escape(&signal),
            escape(&line.signature),
            executable,
        ];
        Self {
            cells: cells.map(String::into_boxed_str),
            place: place(line).into(),
            zone: line.timestamp.zone_name().into(),
        }
    }
}

/// The place as a report has it: every abort has the same innermost function, which says nothing.
fn place(line: &Line<'_>) -> String {
    let frames = line.stack_trace.and_then(|frames| serde_json::from_str::<Vec<&RawValue>>(frames.get()).ok());
    let frames = frames.unwrap_or_default();
    let parsed = |frame: &RawValue| serde_json::from_str::<Frame>(frame.get()).ok();
    let found = frames.iter().map_while(|frame| parsed(frame)).find(says_something);
    match found.or_else(|| frames.first().and_then(|frame| parsed(frame))) {
        Some(frame) => escape(&summary::place(&[frame])),
        None => line.instruction_symbol.as_deref().map_or_else(|| "-".to_owned(), escape),
    }
}

impl Weigh for Row {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.place.len() + self.zone.len() + self.cells.iter().map(|cell| cell.len()).sum::<usize>()
    }
}

/// Rows under their headings, and the host only where there are several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct List(pub Vec<Row>);

impl Record for List {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let has_hosts = self.0.windows(2).any(|pair| pair[0].cells[HOST] != pair[1].cells[HOST]);
        let is_shown = |at: &usize| has_hosts || *at != HOST;
        let mut columns = COLUMNS;
        for row in &self.0 {
            for (column, cell) in columns.iter_mut().zip(&row.cells) {
                column.width = column.width.max(length(cell));
            }
        }
        let longest = self.0.iter().map(|row| length(&row.place)).max().unwrap_or_default();
        if !style.fits(columns.iter().map(|column| column.gap + column.width).sum::<usize>() + longest) {
            let shortened = self.0.iter().map(|row| length(&shorten_path(&row.cells[EXECUTABLE], EXECUTABLE_WIDTH)));
            columns[EXECUTABLE].width = shortened.fold(COLUMNS[EXECUTABLE].width, usize::max);
        }
        columns[0].gap = 0;
        let shown: Vec<Column> = (0..COLUMNS.len()).filter(is_shown).map(|at| columns[at]).collect();
        let table = Table::new(&shown, PLACE, style);
        let mut headings: Vec<String> = shown.iter().map(|column| column.heading.to_owned()).collect();
        if style.has_zone {
            headings[TIME] = format!("{} ({})", headings[TIME], self.zones().join("/"));
        }
        writeln!(to, "{}", table.line(&headings, PLACE))?;
        for row in &self.0 {
            let cell = |at: usize| match at {
                EXECUTABLE => shorten_path(&row.cells[at], columns[at].width.max(EXECUTABLE_WIDTH)),
                _ => row.cells[at].to_string(),
            };
            let cells: Vec<String> = (0..COLUMNS.len()).filter(is_shown).map(cell).collect();
            writeln!(to, "{}", table.line(&cells, &row.place))?;
        }
        Ok(())
    }
}

impl List {
    /// The zones of its times, of which there are two where summer has another one.
    fn zones(&self) -> Vec<&str> {
        let mut zones = Vec::new();
        for row in &self.0 {
            if !zones.contains(&&*row.zone) {
                zones.push(&*row.zone);
            }
        }
        zones
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
            .replace("\"main+0x10\"", "null")
            .replace("\"disposition\":\"fatal\"", "\"disposition\":\"handled\"")
            .replace("\"pid\":1234", "\"pid\":7");
        let text = List(vec![row(LINE), row(&other)]).text();
        assert_eq!(
            text,
            "TIME                  PID   UID  SIGNAL             SIGNATURE         EXECUTABLE                PLACE\n\
             2026-11-29 18:19:07  1234  1000  SIGSEGV            0123456789abcdef  /usr/bin/myapp (deleted)  main+0x10\n\
             2026-11-29 18:19:07     7  1000  SIGSEGV (handled)  0123456789abcdef  [my\"app]                  -\n"
        );
    }

    #[test]
    fn a_terminal_of_80_columns_has_what_show_takes() {
        let long = LINE
            .replace("/usr/bin/myapp (deleted)", "/usr/lib/postgresql/15/bin/postgres")
            .replace("main+0x10", "ExecInterpExpr+0x1f2");
        let mut text = String::new();
        List(vec![row(&long)]).write_text(&mut text, Style { width: Some(80), ..Style::default() }).unwrap();
        assert_eq!(
            text,
            "TIME                  PID  SIGNAL   EXECUTABLE         PLACE\n\
             2026-11-29 18:19:07  1234  SIGSEGV  …/15/bin/postgres  ExecInterpExpr+0x1f2\n"
        );
    }

    #[test]
    fn on_a_terminal_the_times_have_their_zone_once() {
        let mut rows = vec![row(LINE), row(LINE), row(LINE)];
        let headings = |rows: &[Row]| {
            let mut text = String::new();
            List(rows.to_vec()).write_text(&mut text, Style { has_zone: true, ..Style::default() }).unwrap();
            text.lines().next().unwrap_or_default().to_owned()
        };
        assert!(headings(&rows).starts_with("TIME (UTC)            PID  "), "{}", headings(&rows));
        rows[1].zone = "CET".into();
        assert!(headings(&rows).starts_with("TIME (UTC/CET)        PID  "), "{}", headings(&rows));
    }

    #[test]
    fn an_abort_has_the_place_of_what_aborted() {
        let frames = r#"[{"symbol":"__pthread_kill_implementation+0x10c","module":"/usr/lib/libc.so.6","inlined":false},{"symbol":"abort+0x1","module":"/usr/lib/libc.so.6","inlined":false},{"symbol":"check+0x3","module":"/usr/bin/myapp","inlined":false},{"damaged":0}]"#;
        let aborted = LINE.replace(r#"[{"symbol":"main+0x10"}]"#, frames);
        assert_eq!(&*row(&aborted).place, "check+0x3 (myapp)");
        // What `--brief` writes.
        assert_eq!(&*row(&LINE.replace(r#"[{"symbol":"main+0x10"}]"#, "null")).place, "main+0x10");
        assert_eq!(&*row(&LINE.replace(r#"[{"symbol":"main+0x10"}]"#, "[]")).place, "main+0x10");
    }

    #[test]
    fn several_hosts_are_shown_and_nothing_forges_a_line() {
        let other = LINE.replace("web-1", "web-2\\n\\u001b[2J");
        let text = List(vec![row(LINE), row(&other)]).text();
        assert!(text.contains("HOST") && text.contains("web-2\\n\\x1b[2J"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
