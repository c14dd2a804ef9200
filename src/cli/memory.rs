//! `faultline memory` as it is typed.

use std::path::PathBuf;
use std::time::Duration;

use crate::probe::{self, Way};
use crate::{memory, options};
use clap::Args;

use super::common::{Common, LIMITS, SHOW, WHICH, Ways, WhichOrCommand, interval};

/// `--attach`
#[derive(Clone, Debug)]
pub(super) struct MemoryWays;

impl Ways for MemoryWays {
    const WAYS: &'static [(Way, &'static str)] = &[
        (Way::Tracepoint, "Tracepoints: of the mapping calls, or of all where those can't be had"),
        (Way::Raw, "The two tracepoints of all calls, without tracefs: every call costs more"),
        (Way::Kprobe, "Kprobes on the mapping calls: a mapping call costs more, other calls cost nothing"),
    ];
}

/// `faultline memory`
#[derive(Args, Debug)]
pub(crate) struct MemoryArgs {
    #[command(flatten)]
    which: WhichOrCommand,

    /// Watch the descendants of --pid, too; the descendants of COMMAND are always watched
    #[arg(long, help_heading = WHICH)]
    follow: bool,

    /// Show every mapping call, not only the calls that concern executable memory
    #[arg(long, help_heading = SHOW)]
    all: bool,

    /// Keep every page that becomes executable in DIR, with an index, pages.jsonl
    #[arg(long, value_name = "DIR", help_heading = SHOW)]
    dump: Option<PathBuf>,

    /// Report every page that becomes executable, without keeping it
    #[arg(long, help_heading = SHOW)]
    pages: bool,

    /// Rebuild ELF files from the dumped pages, if their headers are there
    #[arg(long, requires = "dump", help_heading = SHOW)]
    elf: bool,

    /// Read memory that can change without a call every TIME [default: 0.1]; with --watch-all print the counts every TIME [default: 10]
    #[arg(long, value_name = "TIME", value_parser = interval, help_heading = SHOW)]
    interval: Option<Duration>,

    /// Count anonymous memory that becomes executable by process, for the whole machine; without records of calls and without dumps
    #[arg(long = "watch-all", help_heading = SHOW, conflicts_with_all = ["follow", "all", "dump", "pages", "pids", "command"])]
    executable_memory: bool,

    #[command(flatten)]
    common: Common<MemoryWays>,

    /// Read at most BYTES of a mapping at a time
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, help_heading = LIMITS)]
    max_bytes: u64,
}

impl From<MemoryArgs> for memory::Options {
    fn from(args: MemoryArgs) -> Self {
        let (common, attach) = args.which.meant(args.common);
        let usual = if args.executable_memory { Duration::from_secs(10) } else { Duration::from_millis(100) };
        Self {
            common,
            follow: args.follow,
            all: args.all,
            pages: args.pages,
            dump: args.dump,
            elf: args.elf,
            max_bytes: args.max_bytes,
            interval: args.interval.unwrap_or(usual),
            executable_memory: args.executable_memory,
            attach,
        }
    }
}

/// What `faultline agent --exec-memory` counts.
pub(super) fn counting(common: options::Common) -> probe::memory::Plan {
    probe::memory::Plan {
        setup: probe::Setup { filter: common.filter, btf: common.btf, ..probe::Setup::default() },
        follow: false,
        show_all: false,
        pages: false,
        headers: false,
        executable_memory: true,
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
