//! `faultline signal` as it is typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use faultline::output::{Format, Target};
use faultline::probe::signal::Who;
use faultline::probe::{self, Filter};
use faultline::{siginfo, signal};

use super::{ProbeArgs, interval};

/// SIGTERM: what is watched unless told otherwise.
const DEFAULT_SIGNAL: u32 = 15;

/// The room for pairs of names unless told otherwise.
const DEFAULT_PAIRS: u32 = 4096;

/// `--attach`
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Attach {
    /// The best that works
    #[default]
    Auto,
    /// Tracepoints only
    Tracepoint,
    /// A kprobe: no result, no POSIX timers
    Kprobe,
    /// The system calls that send: no result, nothing that the kernel sends
    Syscall,
}

impl From<Attach> for probe::signal::Attach {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Tracepoint => Self::Tracepoint,
            Attach::Kprobe => Self::Kprobe,
            Attach::Syscall => Self::Syscall,
        }
    }
}

/// `faultline signal`
#[derive(Args, Debug)]
pub struct SignalArgs {
    #[command(flatten)]
    probe: ProbeArgs<Attach>,

    /// Watch this signal: SIGTERM, term and 15 are the same (repeatable; the default is SIGTERM)
    #[arg(short, long = "signals", value_name = "SIG", value_delimiter = ',', value_parser = siginfo::parse_signal)]
    signals: Vec<u32>,

    /// Watch all signals
    #[arg(short, long, conflicts_with = "signals")]
    all_signals: bool,

    /// Show fork, exec and exit as well
    #[arg(long)]
    processes: bool,

    /// Only what this process sends: a PID, or a part of a name (repeatable)
    #[arg(long, value_name = "WHO", value_parser = who)]
    from: Vec<Who>,

    /// Only what is sent to this process: a PID, or a part of a name (repeatable)
    #[arg(long, value_name = "WHO", value_parser = who)]
    to: Vec<Who>,

    /// Count in the kernel, and print who sent what to whom how often every SECS seconds, instead of each event
    #[arg(long, value_name = "SECS", value_parser = interval)]
    summary: Option<Duration>,

    /// Room for N pairs of names in the summary; what finds none is counted together
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PAIRS, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_pairs: u32,
}

/// All digits: a PID.
fn who(text: &str) -> Result<Who, String> {
    match text.parse() {
        Ok(0) => Err("0 is nobody's PID".to_owned()),
        Ok(pid) => Ok(Who::Pid(pid)),
        Err(_) => Ok(Who::Name(text.to_owned())),
    }
}

impl From<SignalArgs> for signal::Options {
    fn from(args: SignalArgs) -> Self {
        let ProbeArgs { watch, format, command } = args.probe;
        let signals = match args.signals {
            _ if args.all_signals => (1..=64).collect(),
            none if none.is_empty() => vec![DEFAULT_SIGNAL],
            signals => signals,
        };
        Self {
            filter: Filter {
                pids: watch.pids,
                process_names: watch.process_names,
                cgroup: watch.cgroup,
                command: !command.is_empty(),
            },
            signals,
            from: args.from,
            to: args.to,
            processes: args.processes,
            summary: args.summary,
            max_pairs: args.max_pairs,
            duration: (!watch.duration.is_zero()).then_some(watch.duration),
            target: Target { path: watch.output, append: watch.append },
            format: format.into(),
            attach: watch.attach.into(),
            btf: watch.btf,
            verbose: watch.verbose,
            strict: watch.strict,
            command,
        }
    }
}

/// What `agent --watch-signals` counts: all of them.
pub fn counting(filter: Filter, interval: Duration, btf: Option<PathBuf>) -> signal::Options {
    signal::Options {
        filter,
        signals: (1..=64).collect(),
        from: Vec::new(),
        to: Vec::new(),
        processes: false,
        summary: Some(interval),
        max_pairs: DEFAULT_PAIRS,
        duration: None,
        target: Target::default(),
        format: Format::Json,
        attach: probe::signal::Attach::Auto,
        btf,
        verbose: false,
        strict: false,
        command: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser as _;

    fn signal(line: &str) -> signal::Options {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Signal(args) => (*args).into(),
            _ => panic!("not signal"),
        }
    }

    #[test]
    fn sigterm_is_the_default() {
        assert_eq!(signal("faultline signal").signals, [15]);
        assert_eq!(signal("faultline signal -s KILL -s 15,SIGRTMIN+3").signals, [9, 15, 37]);
        assert_eq!(signal("faultline signal -a").signals.len(), 64);
        assert!(Cli::try_parse_from(["faultline", "signal", "-a", "-s", "9"]).is_err());
    }

    #[test]
    fn digits_are_a_pid() {
        let options = signal("faultline signal --from 12 --to sh --to 3x");
        assert_eq!(options.from, [Who::Pid(12)]);
        assert_eq!(options.to, [Who::Name("sh".to_owned()), Who::Name("3x".to_owned())]);
        assert!(Cli::try_parse_from(["faultline", "signal", "--from", "0"]).is_err());
    }
}
