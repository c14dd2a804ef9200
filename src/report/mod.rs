//! `faultline report`: the summaries of many hosts and times, merged into one ranking, or two of them compared.
//!
//! It needs no privileges and no kernel: it reads what `faultline crash --summary` wrote, there or elsewhere.

mod bug;
mod builds;
mod complaints;
mod diff;
mod earlier;
mod input;
mod merge;
mod names;
mod note;
mod processors;
mod read;
mod record;
mod room;
mod seen;
mod tally;
mod text;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

pub(crate) use complaints::Complaints;
pub(crate) use diff::Diff;
pub(crate) use input::{Block, Blocks, Content, reason};
pub(crate) use record::{By, Report, Selection, Totals};

use crate::output::{Format, OutputTarget, Writer};

/// The path that means standard input.
pub(crate) const STANDARD_INPUT: &str = "-";

/// Rows of a list in text, unless --top says otherwise.
const TEXT_TOP: usize = 20;

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
    Compare { before: PathBuf, after: PathBuf },
}

/// How much of what was read is in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Completeness {
    /// All of it, and it adds up.
    Whole,
    /// Something found no room, or doesn't add up: the report says so.
    Doubtful,
    /// Lines were skipped: it isn't known what the report lacks.
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
            let merged = read::merge(paths, selection, None)?.finish(selection.signature.as_deref());
            let mut report = Report::new(merged, selection, default_top);
            names::complete(&mut report)?;
            if let (Some(signature), true) = (&selection.signature, report.groups.is_empty()) {
                say!("faultline: no group among these has the signature {signature}, or is of this family");
            }
            write(options, &report)?;
            Ok(Completeness::of(&[&report.totals]))
        }
        Inputs::Compare { before, after } => {
            if before == after && before.as_os_str() == STANDARD_INPUT {
                bail!("standard input can't be both files of --diff");
            }
            refuse_overwriting(&options.target, [before, after].into_iter())?;
            let mut before = read::merge(std::slice::from_ref(before), selection, None)?;
            let mut after = read::merge(std::slice::from_ref(after), selection, None)?;
            // Each has the names that the other one may lack.
            let (known_before, known_after) = (before.families(), after.families());
            before.learn_all(&known_after);
            after.learn_all(&known_before);
            let name = selection.signature.as_deref();
            let (before, after) = (before.finish(name), after.finish(name));
            let mut diff = Diff::new(before, after, selection, selection.limit(default_top));
            if all {
                diff.shorten(selection.limit(default_top));
            }
            write(options, &diff)?;
            Ok(Completeness::of(&[&diff.before, &diff.after]))
        }
    }
}

/// A folder is no file of records.
///
/// # Errors
/// If it is one: with what to give in its place.
pub(crate) fn refuse_folder(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    if metadata.is_dir() {
        bail!("failed to read `{0}`: it is a folder: give its files, as {0}/*.jsonl*", path.display());
    }
    Ok(())
}

/// Opens the output last, so that a report that fails leaves the old file as it is.
fn write(options: &Options, record: &impl crate::output::Record) -> Result<()> {
    let mut writer = Writer::open(&options.target, options.format)?;
    writer.write(record)?;
    writer.flush()
}

/// Refuses `report a.jsonl -o a.jsonl`, which would destroy the file that it reads.
pub(crate) fn refuse_overwriting<'a>(
    target: &OutputTarget,
    mut inputs: impl Iterator<Item = &'a PathBuf>,
) -> Result<()> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino(), file.is_file()));
    let Some(output) = target.path.as_deref() else { return Ok(()) };
    match identity(output) {
        Some(same @ (_, _, true)) if !target.append && inputs.any(|input| identity(input) == Some(same)) => {
            bail!("failed to open `{}` for writing: it is one of the files to read", output.display())
        }
        _ => Ok(()),
    }
}

/// Merges any lines, shows them, and compares them with none and with themselves.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    use crate::output::Record;
    use crate::record::crash::Disposition;

    let selection = Selection { dispositions: Disposition::ALL.to_vec(), ..Selection::default() };
    let merge = |data: &[u8]| read::merge_bytes(data, &selection).finish(None);
    let report = Report::new(merge(data), &selection, TEXT_TOP);
    let _ = (report.text(), serde_json::to_string(&report));
    for before in [&b""[..], data] {
        let diff = Diff::new(merge(before), merge(data), &selection, TEXT_TOP);
        let _ = (diff.text(), serde_json::to_string(&diff));
    }
}
