//! `faultline memory`: what was typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use faultline::memory;
use faultline::output::Target;
use faultline::probe::{self, Filter};

use super::{ProbeArgs, interval};

/// `--attach`
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Attach {
    /// The best that works
    #[default]
    Auto,
    /// Tracepoints: of the mapping calls, or of all where those can't be had
    Tracepoint,
    /// The two tracepoints of all calls, without tracefs: dearer for everybody
    Raw,
    /// Kprobes on the mapping calls: free for who makes none, dear for who does
    Kprobe,
}

impl From<Attach> for probe::memory::Attach {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Tracepoint => Self::Tracepoint,
            Attach::Raw => Self::Raw,
            Attach::Kprobe => Self::Kprobe,
        }
    }
}

/// `faultline memory`
#[derive(Args, Debug)]
pub struct MemoryArgs {
    #[command(flatten)]
    probe: ProbeArgs<Attach>,

    /// Watch the descendants of --pid, too; those of COMMAND are watched in any case
    #[arg(long)]
    follow: bool,

    /// Show every mapping call, not only those that concern executable memory
    #[arg(long)]
    all: bool,

    /// Keep every page that becomes executable in DIR, with an index, pages.jsonl
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,

    /// Tell of every page that becomes executable, without keeping it
    #[arg(long)]
    pages: bool,

    /// Rebuild ELF files of what is dumped, where its headers are there
    #[arg(long, requires = "dump")]
    elf: bool,

    /// Read at most BYTES of one mapping at one time
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    max_bytes: u64,

    /// Read memory that can change by itself every SECS; with --watch-all: tell every SECS [default: 0.1, 10]
    #[arg(long, value_name = "SECS", value_parser = interval)]
    interval: Option<Duration>,

    /// Count anonymous memory that becomes executable, for the whole machine, by process; no records of calls, no dumps
    #[arg(long, conflicts_with_all = ["follow", "all", "dump", "pages", "pids", "command"])]
    watch_all: bool,
}

impl From<MemoryArgs> for memory::Options {
    fn from(args: MemoryArgs) -> Self {
        let ProbeArgs { watch, format, command } = args.probe;
        let usual = if args.watch_all { Duration::from_secs(10) } else { Duration::from_millis(100) };
        Self {
            filter: Filter {
                pids: watch.pids,
                process_names: watch.process_names,
                cgroup: watch.cgroup,
                command: !command.is_empty(),
            },
            follow: args.follow,
            all: args.all,
            pages: args.pages,
            dump: args.dump,
            elf: args.elf,
            max_bytes: args.max_bytes,
            interval: args.interval.unwrap_or(usual),
            watch_all: args.watch_all,
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

/// What `faultline agent --exec-memory` counts.
pub fn counting(filter: Filter, btf: Option<PathBuf>) -> probe::memory::Plan {
    probe::memory::Plan {
        filter,
        follow: false,
        show_all: false,
        pages: false,
        headers: false,
        watch_all: true,
        attach: probe::memory::Attach::Auto,
        btf,
        verbose: false,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn memory(line: &str) -> Result<memory::Options, clap::Error> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Memory(args) => Ok((*args).into()),
            _ => panic!("not memory"),
        }
    }

    #[test]
    fn defaults() {
        let options = memory("faultline memory -p 1").unwrap();
        assert_eq!((options.max_bytes, options.interval), (64 << 20, Duration::from_millis(100)));
        assert!(!options.all && !options.pages && options.dump.is_none() && !options.follow);
        assert_eq!(memory("faultline memory --watch-all").unwrap().interval, Duration::from_secs(10));
    }

    #[test]
    fn what_contradicts_is_refused() {
        for wrong in ["--watch-all -p 1", "--watch-all --dump x", "--watch-all -- true", "--elf"] {
            assert!(memory(&format!("faultline memory {wrong}")).is_err(), "{wrong}");
        }
        assert!(memory("faultline memory --watch-all -n x --cgroup /sys").is_ok());
    }
}
