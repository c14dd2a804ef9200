//! `faultline call` as it is typed.

use crate::call::{self, Stitch, TriggerOn};
use crate::probe::Way;
use crate::probe::abi::call::fl_own_limit;
use clap::{Args, ValueEnum};

use super::common::{Common, LIMITS, SHOW, Ways, WhichOrCommand};
use super::crash::{Deaths, Stacks};

/// The recorder's rings have places for a power of two.
const CALLS: std::ops::RangeInclusive<u32> = fl_own_limit::FL_LIMIT_CALLS_LEAST.0..=CALLS_MAX;
const CALLS_MAX: u32 = fl_own_limit::FL_LIMIT_CALLS.0;

/// `--attach`
#[derive(Clone, Debug)]
pub(super) struct CallWays;

impl Ways for CallWays {
    const AUTO: &'static str = "The best way that works, for each function";
    const WAYS: &'static [(Way, &'static str)] = &[
        (Way::Fentry, "fentry and fexit"),
        (Way::KprobeMulti, "One link for all functions"),
        (Way::Kprobe, "A kprobe and a kretprobe for each function"),
        (Way::Tracepoint, "The tracepoints of system calls"),
    ];
}

/// `--preset`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Preset {
    /// What maps, changes and unmaps memory
    Memory,
    /// What opens, truncates, renames and removes files
    File,
    /// What sends, handles and blocks signals
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
pub(crate) struct CallArgs {
    /// Record these system calls, functions of the kernel and BPF programs: munmap, do_truncate, 'vfs_*', bpf:NAME
    #[arg(value_name = "FUNCTION", value_parser = name)]
    functions: Vec<String>,

    // Behind the functions, as it has the command.
    #[command(flatten)]
    which: WhichOrCommand,

    /// Record a ready choice of functions (repeatable)
    #[arg(long = "preset", value_name = "WHAT", value_enum, value_delimiter = ',', help_heading = SHOW)]
    presets: Vec<Preset>,

    /// Of BPF programs, record those that process PID holds: all, or those named by bpf:NAME (repeatable)
    #[arg(long, value_name = "PID", help_heading = SHOW)]
    bpf_of: Vec<u32>,

    /// Record BPF programs that are loaded later, too: all, or those named by bpf:NAME
    #[arg(long, help_heading = SHOW)]
    follow_bpf: bool,

    /// Of BPF programs that are callbacks (of a scheduler, a congestion control, HID), record the kernel's functions that call them, too
    #[arg(long, help_heading = SHOW)]
    callers: bool,

    /// Keep the kernel's stack of each call
    #[arg(long, help_heading = SHOW)]
    kernel_stack: bool,

    /// Print the calls of a task when it gets a signal (USR1), when a function returns a result (mmap=-ENOMEM) or begins (munmap:len>4096), when it
    /// passes a tracepoint (tp_btf:NAME, tracepoint:CATEGORY:NAME), or when the kernel ends a BPF scheduler (scheduler_error); repeatable
    #[arg(long = "trigger", value_name = "TRIGGER", value_parser = TriggerOn::parse, help_heading = SHOW)]
    triggers: Vec<TriggerOn>,

    /// What joins calls to a trigger: its task, the time (the newest calls of all tasks), or an argument (all calls that were given the same)
    #[arg(long, value_name = "ARGUMENT", default_value = "task", value_parser = Stitch::parse, help_heading = SHOW)]
    stitch: Stitch,

    /// Print calls as they end, at most RATE a second on each processor
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true, default_missing_value = "100", help_heading = SHOW,
        value_parser = clap::value_parser!(u32).range(1..))]
    live: Option<u32>,

    #[command(flatten)]
    deaths: Deaths,

    #[command(flatten)]
    common: Common<CallWays>,

    /// Keep the last N calls of each task: 4 to 64, rounded up to a power of 2
    #[arg(short = 'k', long, value_name = "N", default_value_t = 16, help_heading = LIMITS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(CALLS_MAX)))]
    calls: u32,

    /// Keep the calls of at most N tasks; the task whose last call is the oldest makes way for a new one
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    tasks: u32,

    #[command(flatten)]
    stacks: Stacks,
}

fn name(text: &str) -> Result<String, String> {
    call::check_name(text).map(|()| text.to_owned())
}

impl From<CallArgs> for call::Options {
    fn from(args: CallArgs) -> Self {
        let (common, attach) = args.which.meant(args.common);
        Self {
            functions: args.functions,
            bpf_of: args.bpf_of,
            follow_bpf: args.follow_bpf,
            callers: args.callers,
            presets: args.presets.into_iter().map(Into::into).collect(),
            calls: args.calls.next_power_of_two().clamp(*CALLS.start(), *CALLS.end()),
            tasks: args.tasks,
            kernel_stacks: args.kernel_stack,
            triggers: args.triggers,
            stitch: args.stitch,
            live: args.live,
            attach,
            crash: args.deaths.meant(args.stacks, common),
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
        assert_eq!(options.crash.common.command, ["./a", "b"]);
        assert!(options.crash.stack_trace && options.crash.common.filter.command);
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
        let result = TriggerOn::Result { function: "mmap".to_owned(), result: -12 };
        assert_eq!(options.triggers, [TriggerOn::Signal(10), result]);
        assert!(call("faultline call munmap --trigger mmap=x").is_err());
    }
}
