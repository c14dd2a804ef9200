//! What was typed, and what was meant by it.

mod call;
mod memory;
mod pagefault;
mod signal;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use faultline::crash::Disposition;
use faultline::output::{self, Target};
use faultline::probe::Filter;
use faultline::probe::crash::{Budget, GroupTable};
use faultline::{agent, crash, probe, report, siginfo};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "faultline",
    version,
    about = "Tells what died on this host, why and how often, from inside the kernel",
    after_help = "faultline doctor says what works here. docs/output.md describes every field of a record.",
    subcommand_required = true,
    arg_required_else_help = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch deaths by signal: address, code, registers, stack, mapping, who sent it
    Crash(Box<CrashArgs>),
    /// Watch signals: who sent what to whom; fork, exec and exit
    Signal(Box<signal::SignalArgs>),
    /// Count page faults in the kernel by process, mode, access and cause
    Pagefault(Box<pagefault::PagefaultArgs>),
    /// Record the last kernel calls of each task, and print them when it crashes
    Call(Box<call::CallArgs>),
    /// Always on: count crashes in the kernel, tell every interval, serve metrics
    Agent(Box<AgentArgs>),
    /// Watch memory become executable: mapping calls, and a dump of every such page
    Memory(Box<memory::MemoryArgs>),
    /// Say what this kernel and these privileges allow, and what to do about the rest
    Doctor(DoctorArgs),
    /// Merge the summaries of many hosts and times into one ranking
    Report(ReportArgs),
}

/// The flags that every probe shares. The filters run in the kernel.
#[derive(Args, Debug)]
pub struct WatchArgs<Attach: ValueEnum + Clone + Default + Send + Sync + 'static> {
    /// Only this process, all its threads (repeatable)
    #[arg(short, long = "pid", value_name = "PID")]
    pids: Vec<u32>,

    /// Only processes whose name (the group leader's comm) contains TEXT (repeatable)
    #[arg(short = 'n', long = "process-name", value_name = "TEXT")]
    process_names: Vec<String>,

    /// Only tasks in this cgroup or below it (a cgroup v2 folder)
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,

    /// Stop after SECS seconds; 0: run until SIGINT or SIGTERM
    #[arg(short, long, value_name = "SECS", default_value = "0", value_parser = seconds)]
    duration: Duration,

    /// Write records to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Keep what is in FILE
    #[arg(long, requires = "output")]
    append: bool,

    /// How to hook the kernel; auto takes the best that works and says which it took
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    attach: Attach,

    /// Take the kernel's types from FILE, where the kernel doesn't show them in /sys/kernel/btf
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,

    /// Exit with 1 where something was lost
    #[arg(long)]
    strict: bool,

    /// Show the loader's messages, start-up time, and the counters at the end
    #[arg(short, long)]
    verbose: bool,
}

/// Where names of functions come from, for commands that show them.
#[derive(Args, Debug)]
pub struct SymbolArgs {
    /// Look for debug files in DIR, too, by build id (DIR/.build-id/ab/cdef.debug) or path (repeatable)
    #[arg(long = "debug-dir", value_name = "DIR")]
    debug_dirs: Vec<PathBuf>,
}

/// How records look, and the command to watch: not for an agent.
#[derive(Args, Debug)]
pub struct ProbeArgs<Attach: ValueEnum + Clone + Default + Send + Sync + 'static> {
    #[command(flatten)]
    watch: WatchArgs<Attach>,

    /// How records look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,

    /// Run COMMAND, watch it and its descendants from its first instruction, and exit with its status
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `--format`
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One object a line (JSON Lines)
    Json,
}

impl From<Format> for output::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}

/// `--attach`
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Attach {
    /// The best that works
    #[default]
    Auto,
    /// Tracepoints only
    Tracepoint,
    /// Kprobes
    Kprobe,
}

impl From<Attach> for probe::crash::Attach {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Tracepoint => Self::Tracepoint,
            Attach::Kprobe => Self::Kprobe,
        }
    }
}

/// How much of a stack is shown, and taken for that
#[derive(Args, Debug)]
struct StackArgs {
    /// Show at most N frames
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=127))]
    max_stack_depth: u32,

    /// Copy at most BYTES of the stack, to find the callers of functions without frame pointers; 0: copy none
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(..=524_288))]
    stack_bytes: u32,
}

/// `faultline crash`
#[derive(Args, Debug)]
pub struct CrashArgs {
    #[command(flatten)]
    probe: ProbeArgs<Attach>,

    #[command(flatten)]
    symbols: SymbolArgs,

    /// Show the registers
    #[arg(short, long)]
    registers: bool,

    /// Show the stack
    #[arg(short = 't', long)]
    stack_trace: bool,

    #[command(flatten)]
    stack: StackArgs,

    /// Watch this signal instead of those that dump core: SIGTERM, term and 15 are the same (repeatable)
    #[arg(long = "signal", value_name = "SIG", value_parser = siginfo::parse_signal)]
    signals: Vec<u32>,

    /// Show signals that the process handled or ignored, too; without it they are only counted
    #[arg(long)]
    handled: bool,

    /// Print the groups (which bug, how often) every SECS seconds, and all of them at the end
    #[arg(long, value_name = "SECS", value_parser = interval)]
    summary: Option<Duration>,

    /// Print the first N deaths of each group, then one each --sample-interval; the rest is counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_group: Option<u32>,

    /// Print at most N deaths a second of all groups; the rest is counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_second: Option<u32>,

    #[command(flatten)]
    table: TableArgs,
}

/// The room for groups in the kernel.
#[derive(Args, Debug)]
pub struct TableArgs {
    /// Another death of a group that has had its first ones, after this time
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = seconds)]
    sample_interval: Duration,

    /// Room for N groups; what finds none is counted together
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_groups: u32,

    /// Room for the stacks of N groups, for those of which no death could be sampled
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_stacks: u32,
}

impl TableArgs {
    fn table(&self) -> GroupTable {
        GroupTable { groups: self.max_groups, stacks: self.max_stacks }
    }
}

impl From<CrashArgs> for crash::Options {
    fn from(args: CrashArgs) -> Self {
        let ProbeArgs { watch, format, command } = args.probe;
        Self {
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
            summary: args.summary,
            table: args.table.table(),
            samples: Budget {
                first: args.samples_per_group,
                interval: args.table.sample_interval,
                rate: args.samples_per_second,
            },
            attach: watch.attach.into(),
            btf: watch.btf,
            debug_dirs: args.symbols.debug_dirs,
            verbose: watch.verbose,
            strict: watch.strict,
            command,
        }
    }
}

/// `faultline agent`
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Write a summary every SECS seconds
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = interval)]
    interval: Duration,

    /// Serve /metrics (OpenMetrics) and /healthz here; a port alone means this machine only
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = listen_address)]
    metrics_listen: Option<SocketAddr>,

    /// Give N executables a label of their own in metrics; the rest is `other`
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_executables: u32,

    /// Write the first N deaths of each group, then one each --sample-interval; all are counted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_group: u32,

    /// Write at most N deaths a second of all groups; all are counted
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_second: u32,

    #[command(flatten)]
    table: TableArgs,

    /// Write signals that the process handled, too; without it they are only counted
    #[arg(long)]
    handled: bool,

    /// Watch this signal instead of those that dump core: SIGTERM, term and 15 are the same (repeatable)
    #[arg(long = "signal", value_name = "SIG", value_parser = siginfo::parse_signal)]
    signal: Vec<u32>,

    /// Count who sends which signal to whom, too
    #[arg(long, alias = "signals")]
    watch_signals: bool,

    /// Count page faults, too, by process
    #[arg(long)]
    pagefaults: bool,

    /// Count who makes anonymous memory executable, too
    #[arg(long)]
    exec_memory: bool,

    #[command(flatten)]
    watch: WatchArgs<Attach>,

    #[command(flatten)]
    symbols: SymbolArgs,

    /// How records look
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "json")]
    format: Format,
}

impl From<AgentArgs> for agent::Options {
    fn from(args: AgentArgs) -> Self {
        let watch = args.watch;
        let filter =
            Filter { pids: watch.pids, process_names: watch.process_names, cgroup: watch.cgroup, command: false };
        let signals = args.watch_signals.then(|| signal::counting(filter.clone(), args.interval, watch.btf.clone()));
        let exec_memory = args.exec_memory.then(|| memory::counting(filter.clone(), watch.btf.clone()));
        let pagefaults = args.pagefaults.then(|| pagefault::counting(filter.clone(), args.interval, watch.btf.clone()));
        Self {
            signals,
            pagefaults,
            exec_memory,
            crash: crash::Options {
                filter,
                signals: args.signal,
                handled: args.handled,
                // They are few, and nobody is there to ask again.
                registers: true,
                stack_trace: true,
                max_stack_depth: 32,
                // What a budgeted sample may take of a ring that others need, too.
                stack_bytes: 16_384,
                duration: (!watch.duration.is_zero()).then_some(watch.duration),
                target: Target { path: watch.output, append: watch.append },
                format: args.format.into(),
                summary: Some(args.interval),
                table: args.table.table(),
                samples: Budget {
                    first: Some(args.samples_per_group),
                    interval: args.table.sample_interval,
                    rate: Some(args.samples_per_second),
                },
                attach: watch.attach.into(),
                btf: watch.btf,
                debug_dirs: args.symbols.debug_dirs,
                verbose: watch.verbose,
                strict: watch.strict,
                command: Vec::new(),
            },
            interval: args.interval,
            metrics_listen: args.metrics_listen,
            max_executables: args.max_executables as usize,
        }
    }
}

/// `faultline doctor`
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How the report looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: Format,

    /// Exit with 1 where faultline crash does not work, or that can't be told
    #[arg(long)]
    pub strict: bool,
}

/// `9464`, `:9464` and `127.0.0.1:9464` are the same; another address must be typed.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    text.parse().map_err(|_| format!("`{text}` is no address to listen on, as 127.0.0.1:9464 or [::1]:9464"))
}

/// `faultline report`
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Files of JSON Lines with summaries, as crash --summary writes them; - or none: standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Say what is new, gone, worse and better in AFTER, by rates
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], conflicts_with = "files")]
    diff: Option<Vec<PathBuf>>,

    /// Only groups of this disposition (repeatable); without it fatal and caught
    #[arg(long = "disposition", value_name = "WHAT", value_enum)]
    dispositions: Vec<DispositionArg>,

    /// Only the group with this signature, with all of its frames
    #[arg(long, value_name = "HEX", value_parser = signature)]
    signature: Option<String>,

    /// Show N groups, 0: all; without it 20 in text and all in JSON
    #[arg(long, value_name = "N")]
    top: Option<usize>,

    /// Write the report to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Keep what is in FILE
    #[arg(long, requires = "output")]
    append: bool,

    /// How the report looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,

    /// Exit with 1 where a line could not be read or a summary does not add up
    #[arg(long)]
    strict: bool,
}

/// `--disposition`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DispositionArg {
    /// The signal ended the process
    Fatal,
    /// A handler ran, and the process ended all the same
    Caught,
    /// A handler ran
    Handled,
    /// Nothing happened
    Ignored,
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
            Self::All => &Disposition::ALL,
        }
    }
}

impl From<ReportArgs> for report::Options {
    fn from(args: ReportArgs) -> Self {
        let asked = |disposition: &Disposition| args.dispositions.iter().any(|arg| arg.meant().contains(disposition));
        let dispositions = match args.dispositions[..] {
            [] => vec![Disposition::Fatal, Disposition::Caught],
            _ => Disposition::ALL.into_iter().filter(asked).collect(),
        };
        let inputs = match args.diff.map(<[PathBuf; 2]>::try_from) {
            Some(Ok([before, after])) => report::Inputs::Compare { before, after },
            _ if args.files.is_empty() => report::Inputs::Merge(vec![report::STANDARD_INPUT.into()]),
            _ => report::Inputs::Merge(args.files),
        };
        Self {
            inputs,
            selection: report::Selection { dispositions, signature: args.signature, top: args.top },
            target: Target { path: args.output, append: args.append },
            format: args.format.into(),
            strict: args.strict,
        }
    }
}

/// A signature, as records have it.
fn signature(text: &str) -> Result<String, String> {
    if text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a signature has 16 hexadecimal digits".to_owned())
    }
}

/// Seconds of an interval: not 0.
fn interval(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        short if short < Duration::from_millis(100) => Err("an interval is 0.1 seconds or more".to_owned()),
        interval => Ok(interval),
    }
}

/// Seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|_| format!("`{text}` is no number of seconds from 0 up"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn crash(line: &str) -> crash::Options {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Crash(args) => (*args).into(),
            _ => panic!("not crash"),
        }
    }

    fn report(line: &str) -> report::Options {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Report(args) => args.into(),
            _ => panic!("not report"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_contracts() {
        let options = crash("faultline crash");
        assert_eq!(options.max_stack_depth, 16);
        assert_eq!(options.duration, None);
        assert!(options.signals.is_empty() && options.command.is_empty() && !options.handled);
    }

    #[test]
    fn everything_after_the_dashes_is_the_command() {
        let options = crash("faultline crash -r -t -- ./a -r --format json");
        assert_eq!(options.command, ["./a", "-r", "--format", "json"]);
        assert!(options.registers && options.stack_trace && options.filter.command);
    }

    #[test]
    fn lists_may_be_repeated() {
        let options = crash("faultline crash -p 1 -p 2 -n a --process-name b --signal TERM --signal 9");
        assert_eq!(options.filter.pids, [1, 2]);
        assert_eq!(options.filter.process_names, ["a", "b"]);
        assert_eq!(options.signals, [15, 9]);
    }

    #[test]
    fn a_port_alone_is_this_machines() {
        for text in ["9464", ":9464", "127.0.0.1:9464"] {
            assert_eq!(listen_address(text), Ok(SocketAddr::from(([127, 0, 0, 1], 9464))), "{text}");
        }
        assert_eq!(listen_address("0.0.0.0:1"), Ok(SocketAddr::from(([0, 0, 0, 0], 1))));
        for text in ["", "localhost:1", "65536", "1.2.3.4"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_agent_watches_signals_under_the_old_name_as_well_which_is_hidden() {
        for (flags, wanted) in [("", false), (" --watch-signals", true), (" --signals", true)] {
            let line = format!("faultline agent{flags}");
            let Command::Agent(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
                panic!("not agent")
            };
            assert_eq!(agent::Options::from(*args).signals.is_some(), wanted, "{line}");
        }
        let help = Cli::command().find_subcommand_mut("agent").unwrap().render_long_help().to_string();
        assert!(help.contains("--watch-signals") && !help.contains("--signals"), "{help}");
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
        let merge = |paths: &[&str]| report::Inputs::Merge(paths.iter().map(PathBuf::from).collect());
        assert_eq!(report("faultline report").inputs, merge(&["-"]));
        assert_eq!(report("faultline report a -").inputs, merge(&["a", "-"]));
        let compare = report::Inputs::Compare { before: "a".into(), after: "b".into() };
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

    #[test]
    fn a_duration_may_have_a_fraction() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["-1", "NaN", "inf", "", "1s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
