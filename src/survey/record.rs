//! The record of `doctor --symbols`, and its text.

use std::fmt::Write;

use serde::Serialize;

use crate::evidence::Failure;
use crate::output::{Record, escape};
use crate::record::Head;
use crate::terminal::Style;

/// What was found for each file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Survey {
    /// Kind, time and host.
    #[serde(flatten)]
    pub(super) head: Head,
    /// As it was typed.
    pub(super) target: String,
    /// Each file.
    pub(super) modules: Vec<Surveyed>,
}

/// A file, and what its names come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Surveyed {
    /// The file.
    pub(super) module: String,
    /// `None` means that it has none, or was not found.
    pub(super) build_id: Option<String>,
    /// What its names come from.
    pub(super) source: Source,
    /// What there is nothing for.
    pub(super) missing: Vec<String>,
    /// What would get it, any one of these.
    pub(super) cures: Vec<String>,
}

/// What names come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// Its debug file.
    DebugFile,
    /// The debug information that it has itself.
    DebugInformation,
    /// Tables of symbols.
    Symbols,
    /// The table of what it exports.
    ExportedSymbols,
    /// There are no names.
    Nothing,
}

impl Source {
    fn words(self) -> &'static str {
        match self {
            Self::DebugFile => "a debug file: names, files and lines, inlined functions",
            Self::DebugInformation => "its own debug information: names, files and lines, inlined functions",
            Self::Symbols => "tables of symbols: names",
            Self::ExportedSymbols => "the table of what it exports: names of these functions",
            Self::Nothing => "nothing: build id and offset",
        }
    }
}

impl Survey {
    /// Has every file all names and lines?
    pub(crate) fn is_whole(&self) -> bool {
        self.modules.iter().all(|module| module.missing.is_empty())
    }
}

/// Why the file was not to be had.
pub(super) fn reason(failure: Failure) -> &'static str {
    match failure {
        Failure::TimedOut => "it took too long to read",
        Failure::Died => "the child that parses files died of it",
        Failure::FailedBefore => "reading it failed a moment ago",
        Failure::Busy | Failure::Ended => "no answer came in time",
        Failure::Unavailable => "the child that parses files can't be started",
        Failure::OtherFile => "another file is at its path now",
        Failure::TooLarge => "it has more symbols or debug information than faultline reads",
        Failure::NotFound | Failure::NoFile | Failure::NoCode => "nothing leads to it any more",
        Failure::Unreadable => "it can't be understood",
        Failure::NoSymbol => "it has no names",
    }
}

impl Record for Survey {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let write = |to: &mut String, what: &str, text: &str| writeln!(to, "  {what:<9} {}", style.wrapped(text, 12));
        writeln!(to, "Names of functions of {}:", escape(&self.target))?;
        for module in &self.modules {
            writeln!(to, "\n{}", escape(&module.module))?;
            write(to, "build id", module.build_id.as_deref().unwrap_or("none"))?;
            write(to, "uses", module.source.words())?;
            if !module.missing.is_empty() {
                write(to, "missing", &module.missing.join("; "))?;
            }
            for (number, cure) in module.cures.iter().enumerate() {
                write(to, if number == 0 { "get it by" } else { "or by" }, &escape(cure))?;
            }
        }
        Ok(())
    }
}
