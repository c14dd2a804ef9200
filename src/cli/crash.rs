//! `faultline crash` as it is typed.

use std::time::Duration;

use crate::crash::Options;
use crate::options;
use crate::probe::abi::fl_own_limit;
use crate::probe::crash::{Budget, GroupTable};
use crate::probe::{self, Way};
use clap::Args;

use super::common::{Common, LIMITS, SHOW, Servers, Signals, Symbols, Ways, WhichOrCommand, interval, time};

/// `--max-stack-depth`
const FRAMES_MAX: i64 = fl_own_limit::FL_LIMIT_FRAMES.0 as i64;

/// `--stack-bytes`
const STACK_BYTES_MAX: i64 = fl_own_limit::FL_LIMIT_STACK_BYTES.0 as i64;

/// `--attach`
#[derive(Clone, Debug)]
pub(super) struct CrashWays;

impl Ways for CrashWays {
    const WAYS: &'static [(Way, &'static str)] = &[(Way::Tracepoint, "Tracepoints only"), (Way::Kprobe, "Kprobes")];
}

/// Which deaths get a record, and what the record shows.
#[derive(Args, Debug)]
#[command(next_help_heading = SHOW)]
pub(super) struct Deaths {
    /// Show the registers
    #[arg(short, long)]
    registers: bool,

    /// Print one line for each crash; in JSON leave out the stack
    #[arg(long)]
    brief: bool,

    /// Show the stack, which is the default
    #[arg(short = 't', long, hide = true, conflicts_with = "brief")]
    stack_trace: bool,

    #[command(flatten)]
    signals: Signals,

    /// Show signals that the process handled or ignored, too; without this flag they are only counted
    #[arg(long)]
    handled: bool,
}

/// How much of a stack is shown and copied, and where its names come from.
#[derive(Args, Debug)]
#[command(next_help_heading = LIMITS)]
pub(super) struct Stacks {
    /// Show at most N frames
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=FRAMES_MAX))]
    max_stack_depth: u32,

    /// Copy at most BYTES of the stack, to find the callers of functions without frame pointers; 0 copies none
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(..=STACK_BYTES_MAX))]
    stack_bytes: u32,

    #[command(flatten)]
    symbols: Symbols,
}

impl Deaths {
    /// Every death gets a record, and none is counted by group.
    pub(super) fn meant(self, stacks: Stacks, common: options::Common) -> Options {
        Options {
            common,
            signals: self.signals.signal,
            handled: self.handled,
            registers: self.registers,
            stack_trace: self.stack_trace || !self.brief,
            max_stack_depth: stacks.max_stack_depth,
            stack_bytes: stacks.stack_bytes,
            summary: None,
            table: GroupTable { groups: 1, stacks: 1 },
            samples: Budget { first: None, interval: Duration::ZERO, rate: None },
            attach: probe::Attach::Auto,
            debug_dirs: stacks.symbols.debug_dirs,
            debuginfod: false,
        }
    }
}

/// `faultline crash`
#[derive(Args, Debug)]
#[command(next_help_heading = LIMITS)]
pub(crate) struct CrashArgs {
    #[command(flatten)]
    which: WhichOrCommand,

    #[command(flatten)]
    deaths: Deaths,

    /// Print the groups (which bug, how often) every TIME (10, 5m), and all of them at the end
    #[arg(long, value_name = "TIME", value_parser = interval, help_heading = SHOW)]
    summary: Option<Duration>,

    #[command(flatten)]
    common: Common<CrashWays>,

    #[command(flatten)]
    stacks: Stacks,

    /// Print the first N deaths of each group, then one after --sample-interval, and each time after twice as long; the rest is counted
    #[arg(long, value_name = "N", help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_group: Option<u32>,

    /// Print at most N deaths a second of all groups; the rest is counted
    #[arg(long, value_name = "N", help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_second: Option<u32>,

    #[command(flatten)]
    table: GroupLimits,

    #[command(flatten)]
    servers: Servers,
}

/// How many groups the kernel keeps, and how often each is sampled.
#[derive(Args, Debug)]
#[command(next_help_heading = LIMITS)]
pub(super) struct GroupLimits {
    /// Sample another death of a group after TIME (60, 1m), once its first deaths were sampled, and each time after twice as long, up to a day
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = time)]
    sample_interval: Duration,

    /// Keep at most N groups; deaths of further groups are counted together
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_groups: u32,

    /// Keep the stacks of at most N groups, for groups of which no death was sampled
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_stacks: u32,
}

impl GroupLimits {
    /// The table, and which deaths are sampled: the `first` of each group, at most `rate` a second of all.
    pub(super) fn meant(&self, first: Option<u32>, rate: Option<u32>) -> (GroupTable, Budget) {
        let table = GroupTable { groups: self.max_groups, stacks: self.max_stacks };
        (table, Budget { first, interval: self.sample_interval, rate })
    }
}

impl From<CrashArgs> for Options {
    fn from(args: CrashArgs) -> Self {
        let (common, attach) = args.which.meant(args.common);
        let (table, samples) = args.table.meant(args.samples_per_group, args.samples_per_second);
        let debuginfod = args.servers.debuginfod;
        Self { summary: args.summary, table, samples, attach, debuginfod, ..args.deaths.meant(args.stacks, common) }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn crash(line: &str) -> Options {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Crash(args) => (*args).into(),
            _ => panic!("not crash"),
        }
    }

    #[test]
    fn defaults_are_the_contracts() {
        let options = crash("faultline crash");
        assert_eq!(options.max_stack_depth, 16);
        assert_eq!(options.common.duration, None);
        assert!(options.signals.is_empty() && options.common.command.is_empty() && !options.handled);
        assert!(options.stack_trace && crash("faultline crash -t").stack_trace && !options.registers);
        assert!(!crash("faultline crash --brief").stack_trace);
        assert!(Cli::try_parse_from(["faultline", "crash", "-t", "--brief"]).is_err());
    }

    #[test]
    fn everything_after_the_dashes_is_the_command() {
        let options = crash("faultline crash -r -t -- ./a -r --format json");
        assert_eq!(options.common.command, ["./a", "-r", "--format", "json"]);
        assert!(options.registers && options.stack_trace && options.common.filter.command);
    }

    #[test]
    fn lists_may_be_repeated() {
        let options = crash("faultline crash -p 1 -p 2 -n a --process-name b --signal TERM --signal 9");
        assert_eq!(options.common.filter.pids, [1, 2]);
        assert_eq!(options.common.filter.process_names, ["a", "b"]);
        assert_eq!(options.signals, [15, 9]);
    }
}
