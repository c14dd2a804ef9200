//! The command line, and what it means: a file for each command, and [`common`] for what they share.

mod agent;
mod call;
mod common;
mod config;
mod crash;
mod doctor;
mod examples;
mod generate;
mod history;
mod limits;
mod lookup;
mod main;
mod memory;
mod pagefault;
mod report;
mod signal;
mod symbolize;
mod version;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
pub use main::main;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "faultline",
    version,
    long_version = version::long(),
    about = "Reports what died on this host, why and how often, from inside the kernel",
    after_help = "`faultline doctor` reports what works on this host. docs/output.md describes every field of a record.",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Report deaths by signal: address, code, registers, stack, mapping, and who sent the signal
    #[command(after_help = examples::CRASH)]
    Crash(Box<crash::CrashArgs>),
    /// Report who sends which signal to whom; with --processes fork, exec and exit as well
    #[command(after_help = examples::SIGNAL)]
    Signal(Box<signal::SignalArgs>),
    /// Count page faults in the kernel by process, mode, access and cause
    #[command(after_help = examples::PAGEFAULT)]
    Pagefault(Box<pagefault::PagefaultArgs>),
    /// Record the last kernel calls of each task, and print them when the task crashes
    #[command(after_help = examples::CALL)]
    Call(Box<call::CallArgs>),
    /// Count crashes all the time, write a summary every interval, and serve metrics
    #[command(after_help = examples::AGENT)]
    Agent(Box<agent::AgentArgs>),
    /// Report memory that becomes executable: the calls that map it, and a dump of its pages
    #[command(after_help = examples::MEMORY)]
    Memory(Box<memory::MemoryArgs>),
    /// Report what this kernel and these privileges allow, and what to do about the rest
    #[command(after_help = examples::DOCTOR)]
    Doctor(doctor::DoctorArgs),
    /// Merge the summaries of many hosts and times into one ranking
    #[command(after_help = examples::REPORT)]
    Report(report::ReportArgs),
    /// List crashes that were recorded before: when, which process, which signal, where
    #[command(after_help = examples::LIST)]
    List(history::ListArgs),
    /// Show crashes that were recorded before, as `crash` shows them: the last one, or one of the list
    #[command(after_help = examples::SHOW)]
    Show(history::ShowArgs),
    /// Name the frames of records afterwards, on any machine: by their build ids, with debuginfod servers
    #[command(after_help = examples::SYMBOLIZE)]
    Symbolize(symbolize::SymbolizeArgs),
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

impl Command {
    fn run(self) -> Result<ExitCode> {
        match self {
            Self::Crash(args) => crate::crash::run(&(*args).into()),
            Self::Signal(args) => crate::signal::run(&(*args).into()),
            Self::Pagefault(args) => crate::pagefault::run(&(*args).into()),
            Self::Call(args) => crate::call::run(&(*args).into()),
            Self::Agent(args) => args.run(),
            Self::Memory(args) => crate::memory::run(&(*args).into()),
            Self::Doctor(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::List(args) => args.run(),
            Self::Show(args) => args.run(),
            Self::Symbolize(args) => args.run(),
            Self::Generate(args) => args.run(),
        }
    }
}

/// The exit status of a run that ended well: with `--strict` 1 if something was missing or lost.
fn strictly(is_strict: bool, is_complete: bool) -> ExitCode {
    ExitCode::from(u8::from(is_strict && !is_complete))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// In the order in which `--help` shows them, and with no flag outside of them but `--help`.
    #[test]
    fn flags_stand_under_headings_in_one_order() {
        let order = [common::WHICH, common::SHOW, common::OUTPUT, common::LIMITS, common::ADVANCED];
        for command in Cli::command().get_subcommands() {
            let mut shown = Vec::new();
            for argument in command.get_arguments() {
                let Some(heading) = argument.get_help_heading() else {
                    assert!(argument.is_positional(), "{} --{}", command.get_name(), argument.get_id());
                    continue;
                };
                if !shown.contains(&heading) {
                    shown.push(heading);
                }
            }
            let wanted: Vec<&str> = order.into_iter().filter(|heading| shown.contains(heading)).collect();
            assert_eq!(shown, wanted, "{}", command.get_name());
        }
    }

    #[test]
    fn a_flag_stands_under_the_same_heading_in_each_command() {
        let all = Cli::command();
        let mut seen = BTreeMap::new();
        for command in all.get_subcommands() {
            for argument in command.get_arguments() {
                let Some(name) = argument.get_long() else { continue };
                let heading = argument.get_help_heading();
                let first = *seen.entry(name).or_insert(heading);
                assert_eq!(heading, first, "{} --{name}", command.get_name());
            }
        }
    }

    /// A heading of arguments that are flattened would hold for those behind them, too.
    #[test]
    fn nothing_but_what_chooses_processes_stands_under_which_processes() {
        let choosing = ["cgroup", "follow", "from", "pid", "process-name", "to", "wait-descendants"];
        for command in Cli::command().get_subcommands() {
            let which = command.get_arguments().filter(|argument| argument.get_help_heading() == Some(common::WHICH));
            for argument in which {
                let is_choosing = argument.get_long().is_none_or(|name| choosing.contains(&name));
                assert!(is_choosing, "{} --{}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn every_flag_has_help() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} --{}", command.get_name(), argument.get_id());
            }
        }
    }
}
