//! `faultline list` and `faultline show`: crash records that were written before, by the agent or by others.
//!
//! It needs no kernel and no privileges but those to read the files. It only reads them: no index stands beside them.

mod files;
mod line;
mod newest;
mod select;
mod table;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use files::OF_SERVICE;
pub(crate) use select::{Selection, Which, signature};

use self::files::HistoryFile;
use self::line::{Found, ReadLine};
use self::newest::{Newest, Weigh};
use self::table::{List, Row};
use crate::output::{Format, OutputTarget, Record, Writer, escape};
use crate::record::crash::Crash;
use crate::report::{Blocks, Complaints, Content, reason};
use crate::terminal::Style;
use crate::text::escape_strings;

/// A longer line is skipped. What faultline writes now is divided at 1 MiB; before, summaries of 20 MB were a line.
const LONGEST_LINE: usize = 64 << 20;

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What to read; empty: what the service has written.
    pub paths: Vec<PathBuf>,
    /// Where the service writes; `None` means where dist/faultline.toml says.
    pub log: Option<PathBuf>,
    /// Which records.
    pub selection: Selection,
    /// So many of them, the newest; `None` means all.
    pub most: Option<usize>,
    /// Write each as a record, and not as a line of a table.
    pub as_records: bool,
    /// Where they go.
    pub target: OutputTarget,
    /// How they look.
    pub format: Format,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Records that were shown.
    pub shown: usize,
    /// Lines that were skipped, and records that found no room.
    pub missing: u64,
}

/// Reads the files, the newest first, and writes what was asked for, the newest last.
///
/// # Errors
/// If a file can't be opened or read, or the output can't be written.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let files = if options.paths.is_empty() {
        files::of_service(options.log.as_deref())?
    } else {
        files::given(&options.paths)?
    };
    crate::report::refuse_overwriting(&options.target, files.iter().map(|file| &file.path))?;
    let mut reader = Reader { options, files: &files, complaints: Complaints::default() };
    let (shown, unkept) = if options.as_records || options.format == Format::Json {
        let kept = reader.read(|found, file, number| Kept { line: found.text.into(), file, number })?;
        (reader.write_records(&kept)?, kept.unkept())
    } else {
        let kept = reader.read(|found, _, _| Row::of(&found.line))?;
        let unkept = kept.unkept();
        let rows: Vec<Row> = kept.into_values().collect();
        (reader.write_table(rows)?, unkept)
    };
    reader.complaints.end("what is shown");
    if unkept != 0 {
        say!(
            "faultline: {unkept} older records found no room and are not shown: ask for fewer with -n, --since or --until"
        );
    }
    if shown == 0 {
        say!("faultline: no such crash record in {}", files::words(&files));
    }
    Ok(Outcome { shown, missing: unkept + reader.complaints.skipped_lines() })
}

/// A record as it was read, and where.
struct Kept {
    line: Box<str>,
    file: usize,
    number: u64,
}

impl Weigh for Kept {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.line.len()
    }
}

struct Reader<'a> {
    options: &'a Options,
    files: &'a [HistoryFile],
    complaints: Complaints,
}

impl Reader<'_> {
    /// The newest of the records that were asked for. `keep`: what is kept of one, by the number of its file and its line.
    fn read<T: Weigh>(&mut self, keep: impl Fn(&Found<'_>, usize, u64) -> T) -> Result<Newest<T>> {
        let (selection, files) = (&self.options.selection, self.files);
        let mut newest = Newest::new(self.options.most);
        for (nth, file) in files.iter().enumerate() {
            // Those that follow were written before it.
            let is_older = |than: Option<_>| than.is_some_and(|than| !file.may_have(than));
            if is_older(selection.begin()) || is_older(newest.bound()) {
                break;
            }
            let mut blocks = Blocks::with_longest(std::slice::from_ref(&file.path), LONGEST_LINE);
            while let Some(block) = blocks.next_block()? {
                let lines = match &block.content {
                    Content::Lines(lines) => lines,
                    Content::Skipped(why) => {
                        self.complaints.skipped(&block.name, block.first_line, why);
                        continue;
                    }
                };
                for (number, line) in (block.first_line..).zip(lines.split(|&byte| byte == b'\n')) {
                    let ReadLine { found, damage } = line::read(line);
                    if let Some(why) = damage {
                        self.complaints.skipped(&block.name, number, &why);
                    }
                    if let Some(found) = found.filter(|found| selection.has(&found.line)) {
                        newest.add(found.line.timestamp, found.text, || keep(&found, nth, number));
                    }
                }
            }
        }
        Ok(newest)
    }

    /// Writes whole records. Returns how many there were.
    fn write_records(&mut self, kept: &Newest<Kept>) -> Result<usize> {
        let mut writer = Writer::open(&self.options.target, self.options.format)?;
        let mut shown = 0;
        for Kept { line, file, number } in kept.values() {
            match self.options.format {
                Format::Json => writer.write(&Verbatim(line))?,
                Format::Text => match serde_json::from_str::<Crash>(&escape_strings(line)) {
                    Ok(record) => writer.write(&record)?,
                    Err(error) => {
                        let name = self.files.get(*file).map(|file| file.path.display().to_string());
                        self.complaints.skipped(&name.unwrap_or_default(), *number, &reason(&error));
                        continue;
                    }
                },
            }
            shown += 1;
        }
        writer.flush()?;
        Ok(shown)
    }

    fn write_table(&self, rows: Vec<Row>) -> Result<usize> {
        let shown = rows.len();
        let mut writer = Writer::open(&self.options.target, self.options.format)?;
        if shown != 0 {
            writer.write(&List(rows))?;
        }
        writer.flush()?;
        Ok(shown)
    }
}

/// A record whose JSON stays as it is, byte for byte.
struct Verbatim<'a>(&'a str);

impl serde::Serialize for Verbatim<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &serde_json::value::RawValue = serde_json::from_str(self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl Record for Verbatim<'_> {
    fn write_text(&self, to: &mut String, _: Style) -> std::fmt::Result {
        to.push_str(&escape(self.0));
        Ok(())
    }
}
