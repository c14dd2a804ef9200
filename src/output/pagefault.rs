//! The text of page faults: a table for each interval, a line for each single fault.

use std::fmt::Write;

use super::Record;
use super::summary::write_losses;
use crate::record::pagefault::{FaultGroup, FaultKind, FaultRecord, Summary};
use crate::record::summary::place;
use crate::terminal::{CONTINUED, Column, Style, Table, length};
use crate::text::{counted, escape};

/// How many functions of a stack a row shows.
const FRAMES_SHOWN: usize = 3;

/// The columns of the table. The last is only there if it was asked for.
const COLUMNS: [Column; 9] = [
    Column { heading: "COUNT", width: 9, is_right: true, gap: 2, leaves: 0 },
    Column { heading: "TOTAL", width: 9, is_right: true, gap: 1, leaves: 5 },
    Column { heading: "MAJOR", width: 7, is_right: true, gap: 1, leaves: 3 },
    Column { heading: "PID", width: 7, is_right: true, gap: 2, leaves: 1 },
    Column { heading: "PROCESS", width: 15, is_right: false, gap: 2, leaves: 0 },
    Column { heading: "MODE", width: 6, is_right: false, gap: 2, leaves: 4 },
    Column { heading: "ACCESS", width: 7, is_right: false, gap: 2, leaves: 0 },
    Column { heading: "CAUSE", width: 11, is_right: false, gap: 2, leaves: 2 },
    Column { heading: "VMA", width: 13, is_right: false, gap: 2, leaves: 0 },
];

const PROCESS: usize = 4;

impl Record for Summary {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let major = self.faults.major.map(|major| format!(" ({major} major)")).unwrap_or_default();
        let what = if self.interval.last { "LAST PAGE FAULTS" } else { "PAGE FAULTS" };
        let head = format!(
            "[{}] {what} of {:.1} s on {}: {}{major} in {}, {} filtered out",
            style.time(self.head.timestamp),
            self.interval.interval_seconds,
            escape(&self.head.host),
            self.faults.matched,
            counted((self.groups.len() + self.omitted.groups) as u64, "group"),
            self.faults.filtered
        );
        writeln!(to, "{}", style.wrapped(&head, 2))?;
        let has_vma = self.groups.iter().any(|group| group.kind.vma.is_some());
        let shown = if has_vma { &COLUMNS[..] } else { &COLUMNS[..COLUMNS.len() - 1] };
        let place = match self.by {
            "process" => "",
            "address" => "PAGE",
            "instruction" => "INSTRUCTION",
            "vma" => "MAPPING",
            "file" => "FILE",
            _ => "STACK",
        };
        let mut columns = shown.to_vec();
        if style.width.is_some() {
            // Another column has the room that no name needs.
            let names = self.groups.iter().map(|group| length(&group.cells()[PROCESS]));
            columns[PROCESS].width = names.max().unwrap_or_default().max(columns[PROCESS].heading.len());
        }
        let table = Table::new(&columns, place, style);
        if !self.groups.is_empty() {
            writeln!(to, "{}", table.headings())?;
        }
        for group in &self.groups {
            let cells = &group.cells()[..shown.len()];
            let place = group.place();
            let line = if self.by == "file" { table.line_of_path(cells, &place) } else { table.line(cells, &place) };
            writeln!(to, "{line}")?;
        }
        if self.omitted.groups != 0 {
            writeln!(
                to,
                "  {:>9} {:>9}  in {} groups more: --top N shows them",
                self.omitted.count, self.omitted.total, self.omitted.groups
            )?;
        }
        let lost = self.losses.iter().chain(&self.sample_losses).filter(|(_, count)| **count != 0);
        let lost: Vec<String> = lost.map(|(reason, count)| format!("{reason} {count}")).collect();
        write_losses(to, style, &[("without details", lost.join(", "))])
    }
}

impl FaultGroup {
    /// One for each column.
    fn cells(&self) -> [String; COLUMNS.len()] {
        let FaultKind { mode, access, cause, vma, .. } = &self.kind;
        let other: String = self.kind.other_flags().map(|flag| format!(",{flag}")).collect();
        [
            self.count.to_string(),
            self.total.to_string(),
            self.major.map_or_else(|| "-".to_owned(), |major| major.to_string()),
            self.pid.map_or_else(|| "ended".to_owned(), |pid| pid.to_string()),
            escape(self.comm.as_deref().unwrap_or("-")),
            (*mode).to_owned(),
            access.unwrap_or("-").to_owned(),
            cause.unwrap_or("-").to_owned() + &other,
            vma.unwrap_or("-").to_owned(),
        ]
    }

    /// What the group is counted by, in a few words.
    fn place(&self) -> String {
        if let Some(address) = self.address {
            return address.to_string();
        }
        if let Some(pointer) = self.instruction_pointer {
            let module = self.instruction_module.as_deref().and_then(|path| path.rsplit('/').next());
            return match (&self.instruction_symbol, module) {
                (Some(symbol), Some(module)) => format!("{} ({})", escape(symbol), escape(module)),
                (None, Some(module)) => format!("{pointer} ({})", escape(module)),
                _ => pointer.to_string(),
            };
        }
        if let Some(mapping) = &self.mapping {
            let name = mapping.mapping_name.as_deref().map(escape).unwrap_or_default();
            return format!("{}-{} {} {name}", mapping.start, mapping.end, mapping.permissions);
        }
        if let Some(file) = &self.file {
            let unknown = || format!("inode {} of {}", file.inode, file.device);
            return file.path.as_deref().map_or_else(unknown, escape);
        }
        let frames = self.stack_trace.iter().flatten().filter(|frame| !frame.inlined).take(FRAMES_SHOWN);
        frames.map(|frame| escape(&place(std::slice::from_ref(frame)))).collect::<Vec<_>>().join(" < ")
    }
}

impl Record for FaultRecord {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let FaultKind { mode, access, cause, vma, .. } = &self.kind;
        let words: Vec<&str> = [Some(*mode), *access, *cause, *vma].into_iter().flatten().collect();
        let symbol = self.instruction_symbol.as_deref().map(|symbol| format!(" ({})", escape(symbol)));
        let line = format!(
            "[{}] PAGE FAULT: {} {} at {}{} [{}/{}]",
            self.head.timestamp.local_milliseconds(),
            words.join(" "),
            self.address,
            self.instruction_pointer,
            symbol.unwrap_or_default(),
            escape(&self.comm),
            self.pid
        );
        writeln!(to, "{}", style.wrapped(&line, CONTINUED))?;
        for (index, frame) in self.stack_trace.iter().flatten().enumerate() {
            let address = frame.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
            writeln!(to, "    #{index:<2} {address} {}", escape(&place(std::slice::from_ref(frame))))?;
        }
        Ok(())
    }
}
