//! `faultline symbolize`: records with the names that they lacked, afterwards and on any machine.
//!
//! What a record says of a frame is enough: the build id of its file and the offset in it. The files are looked for at their paths, in the
//! folders of debug files, and at the servers of DEBUGINFOD_URLS.

mod fields;
mod record;

use std::path::PathBuf;

use anyhow::Result;

use self::fields::Fields;
use self::record::Tally;
use crate::debuginfod::Settings;
use crate::offline::{Names, name_stack};
use crate::output::{Format, OutputTarget, Record, Writer, escape};
use crate::report::{Block, Blocks, Content};
use crate::terminal::Style;
use crate::text::counted;

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What to read.
    pub paths: Vec<PathBuf>,
    /// Where debug files are looked for first.
    pub debug_dirs: Vec<PathBuf>,
    /// Where the records go.
    pub target: OutputTarget,
}

/// What came of all records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    tally: Tally,
    /// Lines that are no record, which are left out.
    skipped: u64,
}

impl Outcome {
    /// Has every frame a name, and was every line a record?
    pub(crate) fn is_whole(self) -> bool {
        self.tally.unnamed == 0 && self.skipped == 0
    }
}

/// Reads, names and writes.
///
/// # Errors
/// If a file can't be opened or read, the output can't be written, or the environment can't be understood or the servers' cache be used.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    crate::report::refuse_overwriting(&options.target, options.paths.iter())?;
    let mut names = Names::new(options.debug_dirs.clone(), Settings::from_environment()?)?;
    let mut blocks = Blocks::new(&options.paths);
    let mut writer = Writer::open(&options.target, Format::Json)?;
    let mut outcome = Outcome::default();
    while let Some(block) = blocks.next_block()? {
        symbolize(block, &mut names, &mut writer, &mut outcome)?;
        writer.flush()?;
    }
    let Outcome { tally, skipped } = outcome;
    let servers = if names.has_servers() { "" } else { "; DEBUGINFOD_URLS names no server" };
    say!(
        "faultline: {} {} new names or lines, {} {} no name yet, {} skipped{servers}",
        counted(tally.named, "frame"),
        have(tally.named),
        tally.unnamed,
        have(tally.unnamed),
        counted(skipped, "line")
    );
    Ok(outcome)
}

fn have(count: u64) -> &'static str {
    if count == 1 { "has" } else { "have" }
}

fn symbolize(block: Block, names: &mut Names, writer: &mut Writer, outcome: &mut Outcome) -> Result<()> {
    let mut skip = |line: u64, why: &str| {
        say!("faultline: {}, line {line}: skipped: {}", escape(&block.name), escape(why));
        outcome.skipped += 1;
    };
    let lines = match block.content {
        Content::Skipped(why) => {
            skip(block.first_line, &why);
            return Ok(());
        }
        Content::Lines(lines) => lines,
    };
    for (number, line) in (block.first_line..).zip(lines.split(|&byte| byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Fields>(line) {
            Ok(mut record) => {
                let tally = record::symbolize(&mut record, &mut |stack| name_stack(names, stack))?;
                outcome.tally.named += tally.named;
                outcome.tally.unnamed += tally.unnamed;
                writer.write(&record)?;
            }
            Err(error) => skip(number, &error.to_string()),
        }
    }
    Ok(())
}

impl Record for Fields {
    fn write_text(&self, _: &mut String, _: Style) -> std::fmt::Result {
        // Only JSON is written.
        Ok(())
    }
}
