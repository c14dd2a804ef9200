//! The `faultline` command: exit status, and the one place that prints an error.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap::error::ErrorKind;

use super::{Cli, Command};
use crate::output::{Target, Writer, is_closed_pipe};
use crate::{agent, call, crash, doctor, memory, pagefault, report, signal};

/// An error, or a wrong command line.
const FAILED: u8 = 2;
/// It ran, but something was missing or lost that was asked for with --strict.
const INCOMPLETE: u8 = 1;

/// Runs the `faultline` command with the arguments of this process. Returns what to exit with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say!("faultline: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Crash(args) => crash::run(&(*args).into()),
        Command::Signal(args) => signal::run(&(*args).into()),
        Command::Pagefault(args) => pagefault::run(&(*args).into()),
        Command::Call(args) => call::run(&(*args).into()),
        Command::Agent(args) => agent::run(&(*args).into()),
        Command::Memory(args) => memory::run(&(*args).into()),
        Command::Doctor(args) => {
            let report = doctor::examine();
            let mut writer = Writer::open(&Target::default(), args.look.format)?;
            writer.write(&report)?;
            writer.flush()?;
            let incomplete = args.strict && report.crash != doctor::Status::Yes;
            Ok(ExitCode::from(if incomplete { INCOMPLETE } else { 0 }))
        }
        Command::Report(args) => {
            let options: report::Options = args.into();
            let incomplete = report::run(&options)? && options.strict;
            Ok(ExitCode::from(if incomplete { INCOMPLETE } else { 0 }))
        }
    }
}

/// Help and version as clap shows them; a wrong command line in one line, like every other error.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is no failure here either.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let first: Vec<&str> = text.split("\n\n").next().unwrap_or_default().lines().map(str::trim).collect();
    let line = first.join(" ");
    say!("faultline: {}; see --help", line.strip_prefix("error: ").unwrap_or(&line));
    ExitCode::from(FAILED)
}
