//! `faultline list` and `faultline show` as they are typed.

use std::mem;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::common::{LIMITS, Output, SHOW};
use super::{config, strictly};
use crate::history::{self, Options, Selection, Which};
use crate::siginfo;
use crate::time::Period;

/// Which records both commands take.
#[derive(Args, Debug)]
struct Filters {
    /// Read records (JSON Lines, as `agent` and `crash --format json` write them) from FILE, gzip and zstd ones as well; - is standard input.
    /// Without FILE: what the service has written, rotated files included
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Leave out what is older: a time as `2026-11-29 18:19:07`, `18:19`, `yesterday` or `2h ago`
    #[arg(short = 'S', long, value_name = "TIME", value_parser = Period::parse, allow_hyphen_values = true, help_heading = SHOW)]
    since: Option<Period>,

    /// Leave out what is newer than this second or minute; a date is its midnight
    #[arg(short = 'U', long, value_name = "TIME", value_parser = Period::parse, allow_hyphen_values = true, help_heading = SHOW)]
    until: Option<Period>,

    /// Show only crashes of this executable: its path, the name of its file or of the process (repeatable)
    #[arg(long = "executable", value_name = "NAME", help_heading = SHOW)]
    executables: Vec<String>,

    /// Show only crashes by this signal (repeatable); SIGSEGV, segv and 11 are the same
    #[arg(long = "signal", value_name = "SIG", value_delimiter = ',', value_parser = siginfo::parse_signal, help_heading = SHOW)]
    signals: Vec<u32>,
}

impl Filters {
    fn meant(self, which: Which) -> Selection {
        Selection {
            which,
            since: self.since.map(|period| period.begin),
            before: self.until.map(Period::limit),
            signals: self.signals,
            executables: self.executables,
        }
    }
}

/// `faultline list`
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filters: Filters,

    #[command(flatten)]
    output: Output,

    /// Show only the newest N; 0 shows all
    #[arg(short = 'n', value_name = "N", help_heading = LIMITS, default_value_t = 0)]
    most: usize,
}

/// `faultline show`
#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Show the newest crash (last), that of a signature or family, of a PID, or those of a time as `2026-11-29 18:19:07` or `18:19`
    #[arg(value_name = "SIGNATURE|TIME|PID|last", default_value = "last", value_parser = Which::parse)]
    which: Which,

    #[command(flatten)]
    filters: Filters,

    #[command(flatten)]
    output: Output,

    /// Show the newest N of them; 0 shows all. The default is 1, and all of a TIME
    #[arg(short = 'n', value_name = "N", help_heading = LIMITS)]
    most: Option<usize>,
}

impl ListArgs {
    /// Lists the records.
    pub(super) fn run(self) -> Result<ExitCode> {
        run(&self.into())
    }
}

impl ShowArgs {
    /// Shows whole records.
    pub(super) fn run(self) -> Result<ExitCode> {
        run(&self.into())
    }
}

/// As in grep and coredumpctl, nothing found is a failure.
fn run(options: &Options) -> Result<ExitCode> {
    let outcome = history::run(options)?;
    Ok(strictly(true, outcome.shown != 0 && outcome.missing == 0))
}

impl From<ListArgs> for Options {
    fn from(args: ListArgs) -> Self {
        let (target, format) = args.output.meant();
        let most = (args.most != 0).then_some(args.most);
        let mut filters = args.filters;
        let paths = mem::take(&mut filters.files);
        let selection = filters.meant(Which::Any);
        Self { paths, log: config::log(), selection, most, as_records: false, target, format }
    }
}

impl From<ShowArgs> for Options {
    fn from(args: ShowArgs) -> Self {
        let (target, format) = args.output.meant();
        let is_time = matches!(args.which, Which::In(_));
        let most = args.most.unwrap_or(usize::from(!is_time));
        let most = (most != 0).then_some(most);
        let mut filters = args.filters;
        let paths = mem::take(&mut filters.files);
        let selection = filters.meant(args.which);
        Self { paths, log: config::log(), selection, most, as_records: true, target, format }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn options(line: &[&str]) -> Options {
        match Cli::try_parse_from([&["faultline"], line].concat()).unwrap().command {
            Command::List(args) => args.into(),
            Command::Show(args) => args.into(),
            _ => panic!("neither"),
        }
    }

    #[test]
    fn a_list_is_of_all_and_show_of_the_newest() {
        assert_eq!(options(&["list"]).most, None);
        assert_eq!(options(&["list", "-n", "3"]).most, Some(3));
        for (line, most) in [
            (&["show"][..], Some(1)),
            (&["show", "1234"], Some(1)),
            (&["show", "18:19"], None),
            (&["show", "-n0"], None),
        ] {
            assert_eq!(options(line).most, most, "{line:?}");
        }
        let show = options(&["show", "last", "a", "b"]);
        assert_eq!((show.selection.which, show.paths), (Which::Any, vec!["a".into(), "b".into()]));
        assert!(Cli::try_parse_from(["faultline", "show", "a.jsonl"]).is_err(), "a file is no record");
    }

    #[test]
    fn times_and_signals_are_understood() {
        let list =
            options(&["list", "--since", "-2h", "--until", "now", "--signal", "segv,6", "--executable", "nginx"]);
        let selection = list.selection;
        assert!(selection.since.unwrap() < selection.before.unwrap());
        assert_eq!((selection.signals, selection.executables), (vec![11, 6], vec!["nginx".to_owned()]));
    }
}
