//! `faultline pagefault` as it is typed.

use std::path::PathBuf;
use std::time::Duration;

use crate::options;
use crate::pagefault::Options;
use crate::probe::abi::pagefault::fl_own_limit;
use crate::probe::pagefault::{self, Events};
use crate::probe::{self, Way};
use clap::{Args, ValueEnum};

use super::common::{Common, LIMITS, SHOW, Symbols, Ways, WhichOrCommand, interval};

/// How many groups an agent's record shows.
const AGENT_GROUPS: usize = 50;

/// `--max-stack-depth`
const FRAMES_MAX: u32 = fl_own_limit::FL_LIMIT_FAULT_FRAMES.0;

/// `--max-groups`
const MAX_GROUPS: u32 = 10_240;

/// `--by`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// The process
    #[default]
    Process,
    /// The process, and the page that was accessed
    Address,
    /// The process, and the instruction that accessed the page
    Instruction,
    /// The process, and the mapping
    Vma,
    /// The process, and the file that is mapped
    File,
}

/// `--attach`
#[derive(Clone, Debug)]
pub(super) struct PagefaultWays;

impl Ways for PagefaultWays {
    const WAYS: &'static [(Way, &'static str)] =
        &[(Way::Tracepoint, "Tracepoints only"), (Way::Kprobe, "A kprobe"), (Way::Perf, "The perf software event")];
}

/// `faultline pagefault`
#[derive(Args, Debug)]
pub(crate) struct PagefaultArgs {
    #[command(flatten)]
    which: WhichOrCommand,

    /// Count only faults in user mode
    #[arg(long, help_heading = SHOW)]
    user: bool,

    /// Count only faults in kernel mode, where the kernel accesses memory of the process, as in read(2)
    #[arg(long, conflicts_with = "user", help_heading = SHOW)]
    kernel: bool,

    /// Count by WHAT, beside mode, access and cause
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = SHOW)]
    by: By,

    /// Show the kind of memory: anonymous, file, stack, heap, shared_memory, vdso, none
    #[arg(long, help_heading = SHOW)]
    vma: bool,

    /// Print the counts every TIME (10, 5m); the default is every second, but with a COMMAND or --events only at the end
    #[arg(long, value_name = "TIME", value_parser = interval, help_heading = SHOW)]
    interval: Option<Duration>,

    /// Print a record of each fault
    #[arg(long, help_heading = SHOW)]
    events: bool,

    /// Count by the stack in user space
    #[arg(long, conflicts_with = "by", help_heading = SHOW)]
    stacks: bool,

    /// Draw the stacks as a flame graph into FILE, an SVG for a browser
    #[arg(long, value_name = "FILE", conflicts_with = "by", help_heading = SHOW)]
    flamegraph: Option<PathBuf>,

    #[command(flatten)]
    common: Common<PagefaultWays>,

    /// Show only the N most frequent groups; the default is 20 in text and all in JSON
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    top: Option<usize>,

    /// Print only every Nth fault of each processor
    #[arg(long, value_name = "N", requires = "events", help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,

    /// Print at most N faults a second
    #[arg(long, value_name = "N", requires = "events", help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Take at most N frames of a stack
    #[arg(long, value_name = "N", default_value_t = FRAMES_MAX, help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..=i64::from(FRAMES_MAX)))]
    max_stack_depth: u32,

    /// Keep at most N groups in a second; faults of further groups are counted together
    #[arg(long, value_name = "N", default_value_t = MAX_GROUPS, help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_groups: u32,

    /// Keep at most N new stacks in a second
    #[arg(long, value_name = "N", default_value_t = 2048, help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    max_stacks: u32,

    #[command(flatten)]
    symbols: Symbols,
}

impl From<PagefaultArgs> for Options {
    fn from(args: PagefaultArgs) -> Self {
        let (common, attach) = args.which.meant(args.common);
        let by = match args.by {
            _ if args.stacks || args.flamegraph.is_some() => pagefault::By::Stack,
            By::Process => pagefault::By::Process,
            By::Address => pagefault::By::Address,
            By::Instruction => pagefault::By::Instruction,
            By::Vma => pagefault::By::Vma,
            By::File => pagefault::By::File,
        };
        Self {
            common,
            by,
            vma: args.vma,
            user: !args.kernel,
            kernel: !args.user,
            top: args.top,
            interval: args.interval,
            events: args.events.then(|| Events { each: args.sample.unwrap_or(1), rate: args.rate }),
            max_stack_depth: args.max_stack_depth,
            flamegraph: args.flamegraph,
            max_groups: args.max_groups,
            max_stacks: args.max_stacks,
            attach,
            debug_dirs: args.symbols.debug_dirs,
        }
    }
}

/// What `faultline agent --pagefaults` counts.
pub(super) fn counting(common: options::Common, interval: Duration) -> Options {
    Options {
        common,
        by: pagefault::By::Process,
        vma: false,
        user: true,
        kernel: true,
        top: Some(AGENT_GROUPS),
        interval: Some(interval),
        events: None,
        max_stack_depth: 1,
        flamegraph: None,
        max_groups: MAX_GROUPS,
        max_stacks: 1,
        attach: probe::Attach::Auto,
        debug_dirs: Vec::new(),
    }
}
