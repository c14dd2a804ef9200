//! `--flamegraph`: a picture of the stacks that cause faults, for a browser.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use inferno::flamegraph::{Options, from_lines};

use super::names::Names;
use super::table::FaultTable;
use crate::output::escape;
use crate::place;
use crate::record::crash::Frame;

/// Makes the file before there is anything to put into it, so that an error is reported at once.
pub(super) fn create(path: &Path) -> Result<File> {
    place::create(path, place::FILE_MODE)
        .map_err(place::explain)
        .with_context(|| format!("failed to create `{}`", path.display()))
}

/// Draws all faults since the start: a tower for each process, its callers below.
pub(super) fn draw(to: File, path: &Path, table: &FaultTable, names: &mut Names) -> Result<()> {
    let lines = fold(table, names);
    let mut options = Options::default();
    options.title = "Page faults".to_owned();
    options.count_name = "page faults".to_owned();
    let failed = |error: &io::Error| anyhow!("failed to write `{}`: {}", path.display(), place::why(error));
    let mut to = BufWriter::new(to);
    if lines.is_empty() {
        // The crate takes nothing for an error.
        let empty = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"400\" height=\"40\"><text x=\"10\" y=\"25\">No page faults</text></svg>\n";
        to.write_all(empty.as_bytes()).map_err(|error| failed(&error))?;
    } else {
        from_lines(&mut options, lines.iter().map(String::as_str), &mut to)
            .with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    to.flush().map_err(|error| failed(&error))
}

/// One line for each stack: the process, its frames from the outermost in, and how many faults. Sorted, as the crate wants it.
fn fold(table: &FaultTable, names: &mut Names) -> Vec<String> {
    let mut lines = Vec::new();
    for (cell, row) in table.sorted(true) {
        let comm = names.comm_of(&cell.process).unwrap_or_else(|| "unknown".to_owned());
        let frames = cell.process.pid().and_then(|pid| names.stack(pid, cell.place));
        let mut parts = vec![clean(&comm)];
        match frames {
            Some(frames) => parts.extend(frames.iter().rev().map(|frame| clean(&label(frame)))),
            None => parts.push("[unknown]".to_owned()),
        }
        lines.push(format!("{} {}", parts.join(";"), row.total));
    }
    lines.sort();
    lines
}

/// The function without the offset in it, so that all places of a function are one.
fn label(frame: &Frame) -> String {
    let module = frame.module.as_deref().and_then(|path| path.rsplit('/').next());
    match (&frame.symbol, module) {
        (Some(symbol), _) => symbol.rsplit_once("+0x").map_or(symbol.as_str(), |(name, _)| name).to_owned(),
        (None, Some(module)) => format!("[{module}]"),
        (None, None) => "[unknown]".to_owned(),
    }
}

/// Semicolons divide the parts of a line, so that a name must have none.
fn clean(text: &str) -> String {
    escape(text).replace(';', ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(symbol: Option<&str>, module: Option<&str>) -> Frame {
        Frame { symbol: symbol.map(str::to_owned), module: module.map(str::to_owned), ..Frame::default() }
    }

    #[test]
    fn a_function_is_one_box_wherever_it_faults() {
        assert_eq!(label(&frame(Some("touch+0x1c"), Some("/bin/x"))), "touch");
        assert_eq!(label(&frame(Some("inlined"), None)), "inlined");
        assert_eq!(label(&frame(None, Some("/lib/libc.so.6"))), "[libc.so.6]");
        assert_eq!(label(&frame(None, None)), "[unknown]");
    }

    #[test]
    fn a_name_can_not_forge_a_frame() {
        assert_eq!(clean("a;b\n1"), "a:b\\n1");
    }
}
