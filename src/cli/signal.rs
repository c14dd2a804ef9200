//! `faultline signal` as it is typed.

use std::time::Duration;

use crate::probe::signal::PeerChoice;
use crate::probe::{self, Way};
use crate::{options, signal};
use clap::Args;

use super::common::{Common, LIMITS, SHOW, Signals, WHICH, Ways, WhichOrCommand, interval};
use crate::probe::abi::signal::fl_own_limit;

/// SIGTERM
const DEFAULT_SIGNAL: u32 = 15;

/// `--max-pairs`
const DEFAULT_PAIRS: u32 = fl_own_limit::FL_LIMIT_PAIRS.0;

/// `--attach`
#[derive(Clone, Debug)]
pub(super) struct SignalWays;

impl Ways for SignalWays {
    const WAYS: &'static [(Way, &'static str)] = &[
        (Way::Tracepoint, "Tracepoints only"),
        (Way::Kprobe, "A kprobe: no result, no POSIX timers"),
        (Way::Syscall, "The system calls that send: no result, nothing that the kernel sends"),
    ];
}

/// `faultline signal`
#[derive(Args, Debug)]
#[command(mut_arg("signal", |arg| {
    arg.short('s')
        .visible_alias("signals")
        .help("Watch this signal instead of SIGTERM (repeatable); SIGUSR1, usr1 and 10 are the same")
}))]
pub(crate) struct SignalArgs {
    #[command(flatten)]
    which: WhichOrCommand,

    /// Watch only what this process sends; WHO is a PID or a part of a name (repeatable)
    #[arg(long, value_name = "WHO", value_parser = who, help_heading = WHICH)]
    from: Vec<PeerChoice>,

    /// Watch only what is sent to this process; WHO is a PID or a part of a name (repeatable)
    #[arg(long, value_name = "WHO", value_parser = who, help_heading = WHICH)]
    to: Vec<PeerChoice>,

    #[command(flatten)]
    signals: Signals,

    /// Watch all signals
    #[arg(short, long, conflicts_with = "signal", help_heading = SHOW)]
    all_signals: bool,

    /// Show fork, exec and exit, too
    #[arg(long, help_heading = SHOW)]
    processes: bool,

    /// Count in the kernel, and print every TIME (10, 5m) who sent what to whom how often, instead of each signal
    #[arg(long, value_name = "TIME", value_parser = interval, help_heading = SHOW)]
    summary: Option<Duration>,

    #[command(flatten)]
    common: Common<SignalWays>,

    /// Keep at most N pairs of names in a summary; signals of further pairs are counted together
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PAIRS, help_heading = LIMITS, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_pairs: u32,
}

/// All digits: a PID.
fn who(text: &str) -> Result<PeerChoice, String> {
    match text.parse() {
        Ok(0) => Err("0 is nobody's PID".to_owned()),
        Ok(pid) => Ok(PeerChoice::Pid(pid)),
        Err(_) => Ok(PeerChoice::Name(text.to_owned())),
    }
}

impl From<SignalArgs> for signal::Options {
    fn from(args: SignalArgs) -> Self {
        let (common, attach) = args.which.meant(args.common);
        let signals = match args.signals.signal {
            _ if args.all_signals => (1..=64).collect(),
            none if none.is_empty() => vec![DEFAULT_SIGNAL],
            signals => signals,
        };
        Self {
            common,
            signals,
            from: args.from,
            to: args.to,
            processes: args.processes,
            summary: args.summary,
            max_pairs: args.max_pairs,
            attach,
        }
    }
}

/// What `agent --watch-signals` counts: all of them.
pub(super) fn counting(common: options::Common, interval: Duration) -> signal::Options {
    signal::Options {
        common,
        signals: (1..=64).collect(),
        from: Vec::new(),
        to: Vec::new(),
        processes: false,
        summary: Some(interval),
        max_pairs: DEFAULT_PAIRS,
        attach: probe::Attach::Auto,
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
        assert_eq!(signal("faultline signal --signal KILL --signals usr1 -s 15").signals, [9, 10, 15]);
        assert_eq!(signal("faultline signal -a").signals.len(), 64);
        assert!(Cli::try_parse_from(["faultline", "signal", "-a", "-s", "9"]).is_err());
    }

    #[test]
    fn digits_are_a_pid() {
        let options = signal("faultline signal --from 12 --to sh --to 3x");
        assert_eq!(options.from, [PeerChoice::Pid(12)]);
        assert_eq!(options.to, [PeerChoice::Name("sh".to_owned()), PeerChoice::Name("3x".to_owned())]);
        assert!(Cli::try_parse_from(["faultline", "signal", "--from", "0"]).is_err());
    }
}
