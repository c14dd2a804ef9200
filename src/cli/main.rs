//! The `faultline` command: exit status, and the one place that prints an error.

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::config::Arguments;
use super::{Cli, limits, lookup};
use crate::command::NotStarted;
use crate::output::is_closed_pipe;
use crate::{memory, naming};

/// An error, or a wrong command line.
pub(super) const FAILED: u8 = 2;

/// Runs the `faultline` command with the arguments of this process. Returns what to exit with.
pub fn main() -> ExitCode {
    limits::within(start)
}

fn start() -> ExitCode {
    lookup::settle();
    if let Some(code) = memory::serve().or_else(naming::serve) {
        return code;
    }
    let arguments = match Arguments::new(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => {
            say!("faultline: {error:#}");
            return ExitCode::from(FAILED);
        }
    };
    let cli = match Cli::try_parse_from(&arguments.all) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments.place(&error)),
    };
    match cli.command.run() {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say!("faultline: {error:#}");
            let not_started = error.downcast_ref::<NotStarted>();
            ExitCode::from(not_started.map_or(FAILED, NotStarted::exit_code))
        }
    }
}

/// Help and version as clap shows them; a wrong command line in one line with clap's tips, like every other error. `place`: where in the
/// config file it is.
fn usage(error: &clap::Error, place: &str) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is no failure here either.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // Nothing was typed but the name: all commands.
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(FAILED);
    }
    let text = error.render().to_string();
    let first: Vec<&str> = text.split("\n\n").next().unwrap_or_default().lines().map(str::trim).collect();
    let line = first.join(" ");
    // `to pass '--x' as a value, use '-- --x'` is no help where `--` begins a command.
    let tips =
        text.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).filter(|tip| !tip.starts_with("to pass "));
    let mut tips: String = tips.map(|tip| format!("; {tip}")).collect();
    if is_command_without_dashes(error, &text) {
        tips += "; put -- before a COMMAND";
    }
    say!("faultline: {place}{}{tips}; see --help", line.strip_prefix("error: ").unwrap_or(&line));
    ExitCode::from(FAILED)
}

/// Was a command typed without the `--` that it stands behind?
fn is_command_without_dashes(error: &clap::Error, text: &str) -> bool {
    let is_word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => !argument.starts_with('-'),
        _ => false,
    };
    error.kind() == ErrorKind::UnknownArgument && is_word && text.contains("-- <COMMAND>")
}
