//! `faultline pagefault` as it is typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use faultline::output::{Format, Target};
use faultline::pagefault::Options;
use faultline::probe::Filter;
use faultline::probe::pagefault::{self as probe, Events};

use super::{ProbeArgs, SymbolArgs, interval};

/// How many groups an agent's record shows.
const AGENT_GROUPS: usize = 50;

/// `--max-groups`
const MAX_GROUPS: u32 = 10_240;

/// `--by`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The process
    #[default]
    Process,
    /// And the page that was accessed
    Address,
    /// And the instruction that accessed it
    Instruction,
    /// And the mapping
    Vma,
    /// And the file that is mapped
    File,
}

/// `--attach`
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Attach {
    /// The best that works
    #[default]
    Auto,
    /// Tracepoints only
    Tracepoint,
    /// A kprobe
    Kprobe,
    /// The perf software event
    Perf,
}

impl From<Attach> for probe::Attach {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Tracepoint => Self::Tracepoint,
            Attach::Kprobe => Self::Kprobe,
            Attach::Perf => Self::Perf,
        }
    }
}

/// `faultline pagefault`
#[derive(Args, Debug)]
pub struct PagefaultArgs {
    #[command(flatten)]
    probe: ProbeArgs<Attach>,

    #[command(flatten)]
    symbols: SymbolArgs,

    /// Only faults in user mode
    #[arg(long)]
    user: bool,

    /// Only faults in kernel mode: the kernel accesses memory of the process, as in read(2)
    #[arg(long, conflicts_with = "user")]
    kernel: bool,

    /// What to count by, beside mode, access and cause
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    by: By,

    /// Tell the kind of memory: anonymous, file, stack, heap, shared_memory, vdso, none
    #[arg(long)]
    vma: bool,

    /// Print the counts every SECS seconds; without it every second, and with a COMMAND or --events only at the end
    #[arg(long, value_name = "SECS", value_parser = interval)]
    interval: Option<Duration>,

    /// Show N groups, the most frequent; without it 20 in text and all in JSON
    #[arg(long, value_name = "N")]
    top: Option<usize>,

    /// Print a record of each fault
    #[arg(long)]
    events: bool,

    /// Print every Nth fault of each processor only
    #[arg(long, value_name = "N", requires = "events", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,

    /// Print at most N faults a second
    #[arg(long, value_name = "N", requires = "events", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Count by the user's stack
    #[arg(long, conflicts_with = "by")]
    stacks: bool,

    /// Draw the stacks as a flame graph into FILE, an SVG for a browser
    #[arg(long, value_name = "FILE", conflicts_with = "by")]
    flamegraph: Option<PathBuf>,

    /// Take at most N frames of a stack
    #[arg(long, value_name = "N", default_value_t = 127, value_parser = clap::value_parser!(u32).range(1..=127))]
    max_stack_depth: u32,

    /// Room for N groups in a second; what finds none is counted together
    #[arg(long, value_name = "N", default_value_t = MAX_GROUPS, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_groups: u32,

    /// Room for N new stacks in a second
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    max_stacks: u32,
}

impl From<PagefaultArgs> for Options {
    fn from(args: PagefaultArgs) -> Self {
        let ProbeArgs { watch, format, command } = args.probe;
        let by = match args.by {
            _ if args.stacks || args.flamegraph.is_some() => probe::By::Stack,
            By::Process => probe::By::Process,
            By::Address => probe::By::Address,
            By::Instruction => probe::By::Instruction,
            By::Vma => probe::By::Vma,
            By::File => probe::By::File,
        };
        Self {
            filter: Filter {
                pids: watch.pids,
                process_names: watch.process_names,
                cgroup: watch.cgroup,
                command: !command.is_empty(),
            },
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
            duration: (!watch.duration.is_zero()).then_some(watch.duration),
            target: Target { path: watch.output, append: watch.append },
            format: format.into(),
            attach: watch.attach.into(),
            btf: watch.btf,
            debug_dirs: args.symbols.debug_dirs,
            verbose: watch.verbose,
            strict: watch.strict,
            command,
        }
    }
}

/// What `faultline agent --pagefaults` counts.
pub fn counting(filter: Filter, interval: Duration, btf: Option<PathBuf>) -> Options {
    Options {
        filter,
        by: probe::By::Process,
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
        duration: None,
        target: Target::default(),
        format: Format::Json,
        attach: probe::Attach::Auto,
        btf,
        debug_dirs: Vec::new(),
        verbose: false,
        strict: false,
        command: Vec::new(),
    }
}
