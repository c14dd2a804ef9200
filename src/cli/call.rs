//! `faultline call` as it is typed.

use clap::{Args, ValueEnum};
use faultline::call::{self, On};
use faultline::output::Target;
use faultline::probe::crash::{Budget, GroupTable};
use faultline::probe::{self, Filter};
use faultline::{crash, siginfo};

use super::{ProbeArgs, StackArgs, SymbolArgs};

/// The recorder's rings have places for a power of two.
const CALLS: std::ops::RangeInclusive<u32> = 4..=64;

/// `--attach`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// For each function the best that works
    #[default]
    Auto,
    /// fentry and fexit
    Fentry,
    /// One link for all functions
    KprobeMulti,
    /// A kprobe and a kretprobe for each
    Kprobe,
    /// The tracepoints of system calls
    Tracepoint,
}

impl From<Attach> for probe::call::Attach {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Fentry => Self::Fentry,
            Attach::KprobeMulti => Self::KprobeMulti,
            Attach::Kprobe => Self::Kprobe,
            Attach::Tracepoint => Self::Tracepoint,
        }
    }
}

/// `--preset`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Preset {
    /// What maps, changes and unmaps memory
    Memory,
    /// What opens, cuts, renames and removes files
    File,
    /// What sends signals and says what becomes of them
    Signal,
}

impl From<Preset> for call::Preset {
    fn from(preset: Preset) -> Self {
        match preset {
            Preset::Memory => Self::Memory,
            Preset::File => Self::File,
            Preset::Signal => Self::Signal,
        }
    }
}

/// `faultline call`
#[derive(Args, Debug)]
pub struct CallArgs {
    /// Functions of the kernel and system calls: munmap, do_truncate, 'vfs_*'
    #[arg(value_name = "FUNCTION", value_parser = name)]
    functions: Vec<String>,

    /// A ready choice of functions (repeatable)
    #[arg(long = "preset", value_name = "WHAT", value_enum, value_delimiter = ',')]
    presets: Vec<Preset>,

    /// Keep the last N calls of each task: 4 to 64, rounded up to a power of two
    #[arg(short = 'k', long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    calls: u32,

    /// Keep the calls of N tasks; those that have called nothing for the longest time make room
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    tasks: u32,

    /// Keep the kernel's stack of each call
    #[arg(long)]
    kernel_stack: bool,

    /// Print the calls of a task when it gets this signal, or when a function returns this: USR1, mmap=-ENOMEM (repeatable)
    #[arg(long = "trigger", value_name = "TRIGGER", value_parser = call::parse_trigger)]
    triggers: Vec<On>,

    /// Print calls as they end, at most RATE a second of each processor
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true, default_missing_value = "100",
        value_parser = clap::value_parser!(u32).range(1..))]
    live: Option<u32>,

    /// Show the registers of a crash
    #[arg(short, long)]
    registers: bool,

    /// Show the stack of a crash
    #[arg(short = 't', long)]
    stack_trace: bool,

    #[command(flatten)]
    stack: StackArgs,

    /// Tell of deaths by this signal instead of those that dump core (repeatable)
    #[arg(long = "signal", value_name = "SIG", value_parser = siginfo::parse_signal)]
    signals: Vec<u32>,

    /// Tell of signals that the process handled or ignored, too
    #[arg(long)]
    handled: bool,

    #[command(flatten)]
    symbols: SymbolArgs,

    #[command(flatten)]
    probe: ProbeArgs<Attach>,
}

fn name(text: &str) -> Result<String, String> {
    call::check_name(text).map(|()| text.to_owned())
}

impl From<CallArgs> for call::Options {
    fn from(args: CallArgs) -> Self {
        let ProbeArgs { watch, format, command } = args.probe;
        Self {
            functions: args.functions,
            presets: args.presets.into_iter().map(Into::into).collect(),
            calls: args.calls.next_power_of_two().clamp(*CALLS.start(), *CALLS.end()),
            tasks: args.tasks,
            kernel_stacks: args.kernel_stack,
            triggers: args.triggers,
            live: args.live,
            attach: watch.attach.into(),
            crash: crash::Options {
                filter: Filter {
                    pids: watch.pids,
                    process_names: watch.process_names,
                    cgroup: watch.cgroup,
                    command: !command.is_empty(),
                },
                signals: args.signals,
                handled: args.handled,
                registers: args.registers,
                stack_trace: args.stack_trace,
                max_stack_depth: args.stack.max_stack_depth,
                stack_bytes: args.stack.stack_bytes,
                duration: (!watch.duration.is_zero()).then_some(watch.duration),
                target: Target { path: watch.output, append: watch.append },
                format: format.into(),
                summary: None,
                table: GroupTable { groups: 1, stacks: 1 },
                samples: Budget { first: None, interval: std::time::Duration::ZERO, rate: None },
                attach: probe::crash::Attach::Auto,
                btf: watch.btf,
                debug_dirs: args.symbols.debug_dirs,
                verbose: watch.verbose,
                strict: watch.strict,
                command,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser as _;

    fn call(line: &str) -> Result<call::Options, clap::Error> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Call(args) => Ok((*args).into()),
            _ => panic!("not call"),
        }
    }

    #[test]
    fn functions_stand_before_the_command() {
        let options = call("faultline call munmap vfs_* --preset memory,file -t -- ./a b").unwrap();
        assert_eq!(options.functions, ["munmap", "vfs_*"]);
        assert_eq!(options.presets, [call::Preset::Memory, call::Preset::File]);
        assert_eq!(options.crash.command, ["./a", "b"]);
        assert!(options.crash.stack_trace && options.crash.filter.command);
    }

    #[test]
    fn calls_are_a_power_of_two() {
        for (typed, kept) in [(1, 4), (4, 4), (16, 16), (17, 32), (64, 64)] {
            assert_eq!(call(&format!("faultline call -k {typed} munmap")).unwrap().calls, kept, "{typed}");
        }
        assert_eq!(call("faultline call munmap").unwrap().calls, 16);
        assert!(call("faultline call munmap -k 65").is_err() && call("faultline call munmap -k 0").is_err());
    }

    #[test]
    fn a_rate_needs_no_number() {
        assert_eq!(call("faultline call --live munmap").unwrap().live, Some(100));
        assert_eq!(call("faultline call --live=5 munmap").unwrap().live, Some(5));
        assert_eq!(call("faultline call munmap").unwrap().live, None);
    }

    #[test]
    fn triggers_are_many() {
        let options = call("faultline call munmap --trigger USR1 --trigger mmap=-ENOMEM").unwrap();
        let result = On::Result { function: "mmap".to_owned(), result: -12 };
        assert_eq!(options.triggers, [On::Signal(10), result]);
        assert!(call("faultline call munmap --trigger mmap=x").is_err());
    }
}
