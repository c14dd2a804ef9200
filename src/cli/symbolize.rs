//! `faultline symbolize` as it is typed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::common::{OUTPUT, Symbols, Target};
use super::strictly;
use crate::report::STANDARD_INPUT;
use crate::symbolize::{self, Options};

/// `faultline symbolize`
#[derive(Args, Debug)]
pub(super) struct SymbolizeArgs {
    /// Read records (JSON Lines, as `crash --format json` and `agent` write them) from FILE; - or no FILE reads standard input. Files may
    /// be compressed by gzip or zstd
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    target: Target,

    /// Exit with 1 if a frame has no name, or a line is no record
    #[arg(long, help_heading = OUTPUT)]
    strict: bool,

    #[command(flatten)]
    symbols: Symbols,
}

impl SymbolizeArgs {
    /// Names all records.
    pub(super) fn run(self) -> Result<ExitCode> {
        let is_strict = self.strict;
        let outcome = symbolize::run(&self.into())?;
        Ok(strictly(is_strict, outcome.is_whole()))
    }
}

impl From<SymbolizeArgs> for Options {
    fn from(args: SymbolizeArgs) -> Self {
        let paths = if args.files.is_empty() { vec![STANDARD_INPUT.into()] } else { args.files };
        Self { paths, debug_dirs: args.symbols.debug_dirs, target: args.target.meant() }
    }
}
