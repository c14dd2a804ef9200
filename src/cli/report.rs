//! `faultline report` as it is typed.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::history::signature;
use crate::record::crash::Disposition;
use crate::report::{self, By, Completeness, Inputs, Options, STANDARD_INPUT, Selection};
use anyhow::Result;
use clap::{Args, ValueEnum};

use super::common::{LIMITS, OUTPUT, Output, SHOW};
use super::strictly;

/// `faultline report`
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Read summaries (JSON Lines, as `crash --summary` and `agent` write them) from FILE; - or no FILE reads standard input. Files may be
    /// compressed by gzip or zstd
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Compare two files by rates: what is new, gone, worse and better in AFTER
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], conflicts_with = "files", help_heading = SHOW)]
    diff: Option<Vec<PathBuf>>,

    /// Show only groups of this disposition (repeatable); the default is fatal and caught
    #[arg(long = "disposition", value_name = "WHAT", value_enum, help_heading = SHOW)]
    dispositions: Vec<DispositionArg>,

    /// Rank bugs in any build, if that is known, or bugs in one build
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = ByArg::Family, help_heading = SHOW)]
    by: ByArg,

    /// Show only the group with this signature or family, with all of its frames
    #[arg(long, value_name = "HEX", value_parser = signature, help_heading = SHOW)]
    signature: Option<String>,

    #[command(flatten)]
    output: Output,

    /// Exit with 1 also if a summary does not add up, or if groups found no room
    #[arg(long, help_heading = OUTPUT)]
    strict: bool,

    /// Show at most N groups, 0 shows all; the default is 20 in text and all in JSON
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    top: Option<usize>,
}

/// `--by`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ByArg {
    /// The bug in any build, with its builds below it
    Family,
    /// The bug in one build
    Signature,
}

impl From<ByArg> for By {
    fn from(by: ByArg) -> Self {
        match by {
            ByArg::Family => Self::Family,
            ByArg::Signature => Self::Signature,
        }
    }
}

/// `--disposition`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DispositionArg {
    /// The signal ended the process
    Fatal,
    /// A handler ran, and the process ended all the same
    Caught,
    /// A handler ran
    Handled,
    /// Nothing happened
    Ignored,
    /// The kernel ended a thread alone
    Thread,
    /// All of these
    All,
}

impl DispositionArg {
    fn meant(self) -> &'static [Disposition] {
        match self {
            Self::Fatal => &[Disposition::Fatal],
            Self::Caught => &[Disposition::Caught],
            Self::Handled => &[Disposition::Handled],
            Self::Ignored => &[Disposition::Ignored],
            Self::Thread => &[Disposition::Thread],
            Self::All => &Disposition::ALL,
        }
    }
}

impl ReportArgs {
    /// Merges or compares.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let options: Options = self.into();
        Ok(match report::run(&options)? {
            Completeness::Lacking => strictly(true, false),
            completeness => strictly(options.strict, completeness == Completeness::Whole),
        })
    }
}

impl From<ReportArgs> for Options {
    fn from(args: ReportArgs) -> Self {
        let asked = |disposition: &Disposition| args.dispositions.iter().any(|arg| arg.meant().contains(disposition));
        let dispositions = match args.dispositions[..] {
            [] => vec![Disposition::Fatal, Disposition::Caught],
            _ => Disposition::ALL.into_iter().filter(asked).collect(),
        };
        let inputs = match args.diff.map(<[PathBuf; 2]>::try_from) {
            Some(Ok([before, after])) => Inputs::Compare { before, after },
            _ if args.files.is_empty() => Inputs::Merge(vec![STANDARD_INPUT.into()]),
            _ => Inputs::Merge(args.files),
        };
        let (target, format) = args.output.meant();
        Self {
            inputs,
            selection: Selection { by: args.by.into(), dispositions, signature: args.signature, top: args.top },
            target,
            format,
            strict: args.strict,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn report(line: &str) -> Options {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Report(args) => args.into(),
            _ => panic!("not report"),
        }
    }

    #[test]
    fn a_report_is_of_what_ended_processes() {
        let defaults = report("faultline report").selection.dispositions;
        assert_eq!(defaults, [Disposition::Fatal, Disposition::Caught]);
        let two = report("faultline report --disposition ignored --disposition fatal").selection.dispositions;
        assert_eq!(two, [Disposition::Fatal, Disposition::Ignored]);
        assert_eq!(report("faultline report --disposition all").selection.dispositions, Disposition::ALL);
    }

    #[test]
    fn a_report_reads_files_or_compares_two() {
        let merge = |paths: &[&str]| Inputs::Merge(paths.iter().map(PathBuf::from).collect());
        assert_eq!(report("faultline report").inputs, merge(&["-"]));
        assert_eq!(report("faultline report a -").inputs, merge(&["a", "-"]));
        let compare = Inputs::Compare { before: "a".into(), after: "b".into() };
        assert_eq!(report("faultline report --diff a b").inputs, compare);
        for wrong in ["--diff a", "--diff a b c", "c --diff a b"] {
            let line = format!("faultline report {wrong}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_signature_is_written_in_one_way() {
        assert_eq!(signature("0123456789ABCDEF"), Ok("0123456789abcdef".to_owned()));
        for text in ["", "0123456789abcde", "0x23456789abcdef", "0123456789abcdef0"] {
            assert!(signature(text).is_err(), "{text}");
        }
    }
}
