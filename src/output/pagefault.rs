//! The text of page faults: a table for each interval, a line for each single fault.

use std::fmt::Write;

use super::Record;
use crate::record::pagefault::{FaultGroup, FaultKind, FaultRecord, Summary};
use crate::record::summary::place;
use crate::text::escape;

/// How many functions of a stack a row shows.
const FRAMES_SHOWN: usize = 3;

impl Record for Summary {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        let major = self.faults.major.map(|major| format!(" ({major} major)")).unwrap_or_default();
        let what = if self.interval.last { "LAST PAGE FAULTS" } else { "PAGE FAULTS" };
        writeln!(
            to,
            "[{}] {what} of {:.1} s on {}: {}{major} in {} groups, {} filtered out",
            self.head.timestamp.local_seconds(),
            self.interval.interval_seconds,
            escape(&self.head.host),
            self.faults.matched,
            self.groups.len() + self.omitted.groups,
            self.faults.filtered
        )?;
        let has_vma = self.groups.iter().any(|group| group.kind.vma.is_some());
        if !self.groups.is_empty() {
            let place = match self.by {
                "process" => "",
                "address" => "PAGE",
                "instruction" => "INSTRUCTION",
                "vma" => "MAPPING",
                "file" => "FILE",
                _ => "STACK",
            };
            let header = row(
                ["COUNT", "TOTAL", "MAJOR", "PID", "PROCESS", "MODE", "ACCESS", "CAUSE"].map(str::to_owned),
                has_vma.then_some("VMA"),
                place,
            );
            writeln!(to, "{header}")?;
        }
        for group in &self.groups {
            writeln!(to, "{}", group.row(has_vma))?;
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
        if lost.is_empty() { Ok(()) } else { writeln!(to, "  Not told: {}", lost.join(", ")) }
    }
}

/// One line of the table. If `vma` is `None`, it wasn't asked for.
fn row(fields: [String; 8], vma: Option<&str>, place: &str) -> String {
    let [count, total, major, pid, process, mode, access, cause] = fields;
    let vma = vma.map(|vma| format!("{vma:<13}  ")).unwrap_or_default();
    let line = format!(
        "  {count:>9} {total:>9} {major:>7}  {pid:>7}  {process:<15}  {mode:<6}  {access:<7}  {cause:<11}  {vma}{place}"
    );
    line.trim_end().to_owned()
}

impl FaultGroup {
    fn row(&self, has_vma: bool) -> String {
        let FaultKind { mode, access, cause, vma, .. } = &self.kind;
        let other: String = self.kind.other_flags().map(|flag| format!(",{flag}")).collect();
        let fields = [
            self.count.to_string(),
            self.total.to_string(),
            self.major.map_or_else(|| "-".to_owned(), |major| major.to_string()),
            self.pid.map_or_else(|| "ended".to_owned(), |pid| pid.to_string()),
            escape(self.comm.as_deref().unwrap_or("-")),
            (*mode).to_owned(),
            access.unwrap_or("-").to_owned(),
            cause.unwrap_or("-").to_owned() + &other,
        ];
        row(fields, has_vma.then(|| vma.unwrap_or("-")), &self.place())
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
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        let FaultKind { mode, access, cause, vma, .. } = &self.kind;
        let words: Vec<&str> = [Some(*mode), *access, *cause, *vma].into_iter().flatten().collect();
        let symbol = self.instruction_symbol.as_deref().map(|symbol| format!(" ({})", escape(symbol)));
        writeln!(
            to,
            "[{}] PAGE FAULT: {} {} at {}{} [{}/{}]",
            self.head.timestamp.local_milliseconds(),
            words.join(" "),
            self.address,
            self.instruction_pointer,
            symbol.unwrap_or_default(),
            escape(&self.comm),
            self.pid
        )?;
        for (index, frame) in self.stack_trace.iter().flatten().enumerate() {
            let address = frame.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
            writeln!(to, "    #{index:<2} {address} {}", escape(&place(std::slice::from_ref(frame))))?;
        }
        Ok(())
    }
}
