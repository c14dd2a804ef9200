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

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(crate) use diff::Diff;
pub(crate) use record::{Report, Row, Selection, Totals};

use crate::output::{Format, OutputTarget, Writer, escape};
use input::{LONGEST_LINE, Line, Lines, Source};
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

/// How much of what was read is in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Completeness {
    /// All of it, and it adds up.
    Whole,
    /// Something found no room, or doesn't add up: the report says so.
    Doubtful,
    /// Lines were skipped: the report lacks what nobody knows.
    Lacking,
}

impl Completeness {
    fn of(totals: &[&Totals]) -> Self {
        let worst = totals.iter().map(|totals| match (totals.damaged, totals.is_incomplete()) {
            (0, false) => Self::Whole,
            (0, true) => Self::Doubtful,
            _ => Self::Lacking,
        });
        worst.max().unwrap_or(Self::Whole)
    }
}

/// Reads, merges and writes.
///
/// # Errors
/// If a file can't be opened or read, or the output can't be written.
pub(crate) fn run(options: &Options) -> Result<Completeness> {
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
            Ok(Completeness::of(&[&report.totals]))
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
            Ok(Completeness::of(&[&diff.before, &diff.after]))
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
        let path = (path.as_os_str() != STANDARD_INPUT).then_some(path.as_path());
        read(Source::open(path)?, &mut merge, &mut complaints)?;
    }
    complaints.end();
    Ok(merge.finish())
}

fn read(source: Source<'_>, into: &mut Merge, complaints: &mut Complaints) -> Result<()> {
    let Source { name, is_compressed, from } = source;
    let mut lines = Lines::new(from, LONGEST_LINE);
    let mut number = 0_u64;
    loop {
        let line = match lines.next_line() {
            Ok(None) => return Ok(()),
            Ok(Some(line)) => line,
            Err(error) => {
                let Some(why) = input::damage(&error, is_compressed) else {
                    return Err(error).with_context(|| format!("failed to read `{name}`"));
                };
                into.damaged();
                complaints.skipped(&name, number + 1, &why);
                return Ok(());
            }
        };
        number += 1;
        let content = match line {
            Line::Whole(line) => input::parse(line),
            Line::TooLong => {
                Err(format!("longer than {} MiB: a smaller --max-groups writes shorter ones", LONGEST_LINE >> 20))
            }
        };
        match content.map(|summary| summary.map(|summary| into.add(summary))) {
            Ok(None | Some(Outcome::Merged)) => {}
            Ok(Some(Outcome::Duplicate)) => complaints.duplicates += 1,
            Ok(Some(Outcome::Unbalanced)) => {
                complaints.say(&name, number, "does not add up: matched is not all that was counted and lost");
            }
            Err(why) => {
                into.damaged();
                complaints.skipped(&name, number, &why);
            }
        }
    }
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
    skipped: u64,
}

impl Complaints {
    fn say(&mut self, file: &str, line: u64, what: &str) {
        self.lines += 1;
        if self.lines <= COMPLAINTS {
            say!("faultline: {}:{line}: {what}", escape(file));
        }
    }

    /// `why` may have parts of the line in it.
    fn skipped(&mut self, file: &str, line: u64, why: &str) {
        self.skipped += 1;
        let short: String = why.chars().take(REASON_CHARS).collect();
        self.say(file, line, &format!("skipped: {}", escape(&short)));
    }

    fn end(&self) {
        if self.lines > COMPLAINTS {
            say!("faultline: {} more such lines", self.lines - COMPLAINTS);
        }
        if self.duplicates != 0 {
            say!("faultline: {} duplicates skipped: the same summaries were merged before", self.duplicates);
        }
        if self.skipped != 0 {
            say!(
                "faultline: {} lines skipped, so that the report lacks what was in them (exit status 1): copy files again that are cut off or \
                 damaged, and give no files of other programs",
                self.skipped
            );
        }
    }
}
