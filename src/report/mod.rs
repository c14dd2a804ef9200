//! `faultline report`: the summaries of many hosts and times, merged into one ranking, or two of them compared.
//!
//! It needs no privileges and no kernel: it reads what `faultline crash --summary` wrote, there or elsewhere.

mod bug;
mod diff;
mod input;
mod merge;
mod record;
mod tally;
mod text;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(crate) use diff::Diff;
pub(crate) use record::{Report, Row, Selection, Totals};

use crate::output::{Format, OutputTarget, Writer, escape};
use input::{LONGEST_LINE, Line, Lines};
use merge::{Merge, Outcome};

/// The path that means standard input.
pub(crate) const STANDARD_INPUT: &str = "-";

/// Rows of a list in text, unless --top says otherwise.
const TEXT_TOP: usize = 20;

/// How many wrong lines are reported one by one.
const COMPLAINTS: u64 = 20;

/// How much of a reason is shown: it may contain the whole line.
const REASON_CHARS: usize = 160;

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What to read.
    pub inputs: Inputs,
    /// What to show of it.
    pub selection: Selection,
    /// Where the report goes.
    pub target: OutputTarget,
    /// How it looks.
    pub format: Format,
    /// Exit with 1 if something could not be merged.
    pub strict: bool,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// All of these into one ranking.
    Merge(Vec<PathBuf>),
    /// Each by itself, to compare.
    #[allow(missing_docs)]
    Compare { before: PathBuf, after: PathBuf },
}

/// Reads, merges and writes. True: something was damaged, found no room, or doesn't add up.
///
/// # Errors
/// If a file can't be opened or read, or the output can't be written.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let selection = &options.selection;
    let all = options.format == Format::Json;
    let default_top = if all { 0 } else { TEXT_TOP };
    match &options.inputs {
        Inputs::Merge(paths) => {
            refuse_overwriting(&options.target, paths.iter())?;
            let (totals, rows) = merge(paths.iter(), selection)?;
            let report = Report::new(totals, rows, selection, default_top);
            if let (Some(signature), true) = (&selection.signature, report.groups.is_empty()) {
                say!("faultline: no group among these has the signature {signature}");
            }
            write(options, &report)?;
            Ok(report.totals.is_incomplete())
        }
        Inputs::Compare { before, after } => {
            if before == after && before.as_os_str() == STANDARD_INPUT {
                bail!("standard input can't be both files of --diff");
            }
            refuse_overwriting(&options.target, [before, after].into_iter())?;
            let before = merge([before].into_iter(), selection)?;
            let after = merge([after].into_iter(), selection)?;
            let mut diff = Diff::new(before, after, selection, selection.limit(default_top));
            if all {
                diff.shorten(selection.limit(default_top));
            }
            write(options, &diff)?;
            Ok(diff.before.is_incomplete() || diff.after.is_incomplete())
        }
    }
}

/// Opens the output last, so that a report that fails leaves the old file as it is.
fn write(options: &Options, record: &impl crate::output::Record) -> Result<()> {
    let mut writer = Writer::open(&options.target, options.format)?;
    writer.write(record)?;
    writer.flush()
}

/// Refuses `report a.jsonl -o a.jsonl`, which would destroy the file that it reads.
fn refuse_overwriting<'a>(target: &OutputTarget, mut inputs: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino(), file.is_file()));
    let Some(output) = target.path.as_deref() else { return Ok(()) };
    match identity(output) {
        Some(same @ (_, _, true)) if !target.append && inputs.any(|input| identity(input) == Some(same)) => {
            bail!("failed to open `{}` for writing: it is one of the files to read", output.display())
        }
        _ => Ok(()),
    }
}

/// Merges all lines of these files, and reports what was wrong with them.
fn merge<'a>(paths: impl Iterator<Item = &'a PathBuf>, selection: &Selection) -> Result<(Totals, Vec<Row>)> {
    let mut merge = Merge::new(&selection.dispositions);
    let mut complaints = Complaints::default();
    for path in paths {
        if path.as_os_str() == STANDARD_INPUT {
            read(io::stdin().lock(), "standard input", &mut merge, &mut complaints)?;
        } else {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("failed to open `{name}`"))?;
            read(BufReader::with_capacity(1 << 18, file), &name, &mut merge, &mut complaints)?;
        }
    }
    complaints.end();
    Ok(merge.finish())
}

fn read(from: impl BufRead, name: &str, into: &mut Merge, complaints: &mut Complaints) -> Result<()> {
    let mut lines = Lines::new(from, LONGEST_LINE);
    let mut number = 0_u64;
    while let Some(line) = lines.next_line().with_context(|| format!("failed to read `{name}`"))? {
        number += 1;
        let content = match line {
            Line::Whole(line) => input::parse(line),
            Line::TooLong => Err(format!("longer than {} MiB", LONGEST_LINE >> 20)),
        };
        match content.map(|summary| summary.map(|summary| into.add(summary))) {
            Ok(None | Some(Outcome::Merged)) => {}
            Ok(Some(Outcome::Duplicate)) => complaints.duplicates += 1,
            Ok(Some(Outcome::Unbalanced)) => {
                complaints.say(name, number, "does not add up: matched is not all that was counted and lost");
            }
            Err(why) => {
                into.damaged();
                let short: String = why.chars().take(REASON_CHARS).collect();
                complaints.say(name, number, &format!("skipped: {}", escape(&short)));
            }
        }
    }
    Ok(())
}

/// Merges any lines, shows them, and compares them with none and with themselves.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    use crate::output::Record;
    use crate::record::crash::Disposition;

    let selection = Selection { dispositions: Disposition::ALL.to_vec(), ..Selection::default() };
    let merge = |data: &[u8]| {
        let mut merge = Merge::new(&selection.dispositions);
        let mut lines = Lines::new(data, 1 << 16);
        while let Ok(Some(line)) = lines.next_line() {
            if let Line::Whole(line) = line
                && let Ok(Some(summary)) = input::parse(line)
            {
                merge.add(summary);
            }
        }
        merge.finish()
    };
    let (totals, rows) = merge(data);
    let report = Report::new(totals, rows, &selection, TEXT_TOP);
    let _ = (report.text(), serde_json::to_string(&report));
    for before in [&b""[..], data] {
        let diff = Diff::new(merge(before), merge(data), &selection, TEXT_TOP);
        let _ = (diff.text(), serde_json::to_string(&diff));
    }
}

/// The wrong lines. In a file of another kind every line is wrong, so that only the first ones are shown.
#[derive(Default)]
struct Complaints {
    lines: u64,
    duplicates: u64,
}

impl Complaints {
    fn say(&mut self, file: &str, line: u64, what: &str) {
        self.lines += 1;
        if self.lines <= COMPLAINTS {
            say!("faultline: {}:{line}: {what}", escape(file));
        }
    }

    fn end(&self) {
        if self.lines > COMPLAINTS {
            say!("faultline: {} more such lines", self.lines - COMPLAINTS);
        }
        if self.duplicates != 0 {
            say!("faultline: {} duplicates skipped: the same summaries were merged before", self.duplicates);
        }
    }
}
