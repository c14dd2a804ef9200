//! The flags that commands share. Each is declared, documented, checked and turned into what it means in this file alone.

use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use crate::output::{self, OutputTarget};
use crate::probe::{Attach, Filter, Way};
use crate::terminal::Color;
use crate::{options, siginfo};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use jiff::{Span, SpanRelativeTo};

/// The headings of `--help`. clap shows them in the order of the first flag of each; [`super::tests`] checks that it is this order.
pub(super) const WHICH: &str = "Which processes";
pub(super) const SHOW: &str = "What to show";
pub(super) const OUTPUT: &str = "Output";
pub(super) const LIMITS: &str = "Limits";
pub(super) const ADVANCED: &str = "Advanced";

/// What `--attach` accepts: each command has its own ways.
pub(super) trait Ways: Clone + Send + Sync + 'static {
    /// What `auto` is, for people.
    const AUTO: &'static str = "The best way that works";
    /// The others, and what they are.
    const WAYS: &'static [(Way, &'static str)];
}

/// One of the words that the command accepts.
fn way<W: Ways>() -> impl TypedValueParser<Value = Attach> {
    let ways = W::WAYS.iter().map(|(way, help)| PossibleValue::new(way.word()).help(*help));
    let all = [PossibleValue::new("auto").help(W::AUTO)].into_iter().chain(ways);
    let meant = |word: String| W::WAYS.iter().find(|(way, _)| way.word() == word).map(|(way, _)| Attach::By(*way));
    PossibleValuesParser::new(all).map(move |word| meant(word).unwrap_or_default())
}

/// Which processes are watched. The filters run in the kernel.
#[derive(Args, Debug)]
#[command(next_help_heading = WHICH)]
pub(super) struct Which {
    /// Watch only this process, with all its threads (repeatable)
    #[arg(short, long = "pid", value_name = "PID", value_parser = pid)]
    pids: Vec<u32>,

    /// Watch only processes whose name contains TEXT (repeatable); the name is the comm of the main thread
    #[arg(short = 'n', long = "process-name", value_name = "TEXT")]
    process_names: Vec<String>,

    /// Watch only tasks in this cgroup or below it; PATH is a folder of cgroup v2
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
}

/// The other flags of every command that watches. Each command's own limits and advanced flags stand behind them.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(super) struct Common<W: Ways> {
    #[command(flatten)]
    output: Output,

    /// Exit with 1 if something was lost
    #[arg(long)]
    strict: bool,

    /// Print nothing on standard error but errors and what was lost
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Print the loader's messages, the start-up time, and the counters at the end
    #[arg(short, long)]
    verbose: bool,

    /// Stop after TIME (10, 90s, 5m, 1h30m); 0 runs until SIGINT or SIGTERM
    #[arg(short, long, value_name = "TIME", default_value = "0", value_parser = time, help_heading = LIMITS)]
    duration: Duration,

    /// Choose how to hook the kernel; auto takes the best way that works and says which it took
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = way::<W>(), help_heading = ADVANCED)]
    attach: Attach,

    #[arg(skip)]
    ways: PhantomData<W>,

    /// Read the kernel's types from FILE, for kernels without /sys/kernel/btf
    #[arg(long, value_name = "FILE", help_heading = ADVANCED)]
    btf: Option<PathBuf>,
}

impl<W: Ways> Common<W> {
    /// What is meant, and how to attach.
    pub(super) fn meant(self, which: Which) -> (options::Common, Attach) {
        let (target, format) = self.output.meant();
        let common = options::Common {
            filter: Filter {
                pids: which.pids,
                process_names: which.process_names,
                cgroup: which.cgroup,
                command: false,
                not_own: true,
            },
            duration: (!self.duration.is_zero()).then_some(self.duration),
            target,
            format,
            btf: self.btf,
            verbose: self.verbose,
            quiet: self.quiet,
            strict: self.strict,
            command: Vec::new(),
            wait_descendants: false,
        };
        (common, self.attach)
    }
}

/// Which processes are watched, and a command among them.
#[derive(Args, Debug)]
#[command(next_help_heading = WHICH)]
pub(super) struct WhichOrCommand {
    /// Run COMMAND, watch it and its descendants from its first instruction, and exit with its status
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// When COMMAND has ended, watch its descendants until they have, too
    #[arg(long, requires = "command")]
    wait_descendants: bool,

    #[command(flatten)]
    which: Which,
}

impl WhichOrCommand {
    /// What is meant with the other flags, and how to attach.
    pub(super) fn meant<W: Ways>(self, common: Common<W>) -> (options::Common, Attach) {
        let (mut common, attach) = common.meant(self.which);
        common.filter.command = !self.command.is_empty();
        common.command = self.command;
        common.wait_descendants = self.wait_descendants;
        (common, attach)
    }
}

/// Where the output goes, and how it looks.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(super) struct Output {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    look: Appearance,

    /// Colour the headline and the cause of a crash in text
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    color: Color,
}

/// Where the output goes.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(super) struct Target {
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Append to FILE instead of replacing what is in it
    #[arg(long, requires = "output")]
    append: bool,

    /// Give FILE these permissions if it is new
    #[arg(long, value_name = "MODE", requires = "output", default_value = "0600", value_parser = mode)]
    mode: u32,
}

impl Output {
    /// What is meant.
    pub(super) fn meant(self) -> (OutputTarget, output::Format) {
        (OutputTarget { color: self.color, ..self.target.meant() }, self.look.format)
    }
}

impl Target {
    /// What is meant.
    pub(super) fn meant(self) -> OutputTarget {
        OutputTarget { path: self.output, append: self.append, mode: self.mode, ..OutputTarget::default() }
    }
}

/// How the output looks.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(super) struct Appearance {
    /// Choose how the output looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: output::Format,
}

/// Which signals to watch.
#[derive(Args, Debug)]
#[command(next_help_heading = SHOW)]
pub(super) struct Signals {
    /// Watch this signal instead of those that dump core (repeatable); SIGTERM, term and 15 are the same
    #[arg(long, value_name = "SIG", value_delimiter = ',', value_parser = siginfo::parse_signal)]
    pub signal: Vec<u32>,
}

/// Where names of functions come from.
#[derive(Args, Debug)]
#[command(next_help_heading = ADVANCED)]
pub(super) struct Symbols {
    /// Look for debug files in DIR first, by build id (DIR/.build-id/ab/cdef.debug) or by path (repeatable)
    #[arg(long = "debug-dir", value_name = "DIR")]
    pub debug_dirs: Vec<PathBuf>,
}

/// The servers that are asked for debug files that are not here.
#[derive(Args, Debug)]
#[command(next_help_heading = ADVANCED)]
pub(super) struct Servers {
    /// Fetch debug files that are not here from the servers of DEBUGINFOD_URLS, which learn the build ids of what crashes
    #[arg(long)]
    pub debuginfod: bool,
}

fn pid(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{text}` is no PID: give a number, or a part of a name with -n"))
}

/// Permissions of a file, as chmod(1) takes them in octal.
fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o666 == 0 && mode & 0o200 != 0 => Ok(mode),
        _ => Err(format!("`{text}` is no mode of an output file: give one as 0600 or 0640")),
    }
}

/// The time of an interval: not 0.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match time(text)? {
        short if short < Duration::from_millis(100) => Err("an interval is 0.1 seconds or more".to_owned()),
        interval => Ok(interval),
    }
}

/// A time: a number of seconds, or numbers with units.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: give seconds, or numbers with units, as 10, 0.5, 90s, 5m or 1h30m");
    if let Ok(seconds) = text.parse() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let span: Span = text.parse().map_err(|_| wrong())?;
    let time = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(time).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_of_a_file() {
        assert_eq!((mode("0640"), mode("600")), (Ok(0o640), Ok(0o600)));
        for text in ["", "rw", "0440", "4755", "0777", "0o640", "8"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_in_seconds_or_has_units() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0.5", 500),
            ("10", 10_000),
            ("90s", 90_000),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["-1", "NaN", "inf", "", "soon", "1x", "-1s", "1m ago", "1y", "1mo", "m"] {
            assert!(time(text).unwrap_err().contains("is no time"), "{text}");
        }
    }
}
