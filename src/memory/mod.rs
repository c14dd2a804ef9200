//! `faultline memory`: memory that becomes executable, and its content. As a library: [`Tracer`].

mod arguments;
mod collect;
mod cover;
mod dump;
mod elf;
pub(crate) mod executable_memory;
mod fetch;
mod item;
mod read;
mod sample;
mod space;
mod target;
mod tracer;
mod unexplained;
mod waiting;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use procfs::process::Stat;

pub use crate::record::memory::{Page, Source, Trigger};
pub(crate) use fetch::serve;
pub use tracer::{Tracer, Tracing};

use crate::host;
use crate::options::Common;
use crate::output::Writer;
use crate::probe::Attach;
use crate::probe::losses::{READS_FAILED, WRITE_FAILED};
use crate::probe::memory::{Counters, Plan, Probe};
use crate::record::memory as record;
use crate::session::{self, Announcement, End, Reader};
use collect::{BATCH, Collector};
use dump::Dump;
use elf::Modules;
use item::{Item, Limits};
use record::PageRecord;

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Which tasks, where records go, and the rest of what all commands share.
    pub common: Common,
    /// Descendants of `filter.pids`, too; those of the command are watched in any case.
    pub follow: bool,
    /// Show calls that don't concern executable memory, too.
    pub all: bool,
    /// Read pages and write a record of each, without a folder.
    pub pages: bool,
    /// Where pages are dumped; `None` means nowhere.
    pub dump: Option<PathBuf>,
    /// Rebuild ELF files of what is dumped.
    pub elf: bool,
    /// At most so much of one mapping is read at one time, bytes.
    pub max_bytes: u64,
    /// How often memory that can change without a call is read again; with `executable_memory`, how often there is a record.
    pub interval: Duration,
    /// Count for the whole machine, and dump nothing.
    pub executable_memory: bool,
    /// How to hook the kernel.
    pub attach: Attach,
}

impl Options {
    fn reads_pages(&self) -> bool {
        !self.executable_memory && (self.pages || self.dump.is_some())
    }

    fn plan(&self) -> Plan {
        Plan {
            setup: self.common.setup(self.attach),
            follow: self.follow,
            show_all: self.all,
            pages: self.reads_pages(),
            headers: self.elf,
            executable_memory: self.executable_memory,
        }
    }
}

/// Watches until a signal says stop, the time is up, or the command or the processes have ended.
///
/// # Errors
/// What can't be watched, written or run: one line with the cure.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    check(options)?;
    let (start, writer) = session::open(&options.common)?;
    let dump = options.dump.as_deref().map(Dump::open).transpose()?;
    let probe = Probe::start(&options.plan())?;
    let session = start.attached()?.following(probe.descendants()?);
    session.announce(&Announcement::new(&subject(options), probe.attached(), probe.build()));
    if options.executable_memory {
        return session.run(&mut executable_memory::Reading::new(&probe, writer, options.interval)?);
    }
    let limits = Limits { pages: options.reads_pages(), max_bytes: options.max_bytes };
    let collector = Collector::new(&probe, limits)?;
    let modules = options.elf.then(|| Modules::new(options.max_bytes));
    let mut reading = Reading { collector, sink: Sink { writer, dump, modules, host: host::name() }, options };
    reading.begin()?;
    session.run(&mut reading)
}

/// Checks what can be checked before anything is loaded.
fn check(options: &Options) -> Result<()> {
    let filter = &options.common.filter;
    let is_chosen = !filter.pids.is_empty() || !filter.process_names.is_empty() || filter.cgroup.is_some();
    if !options.executable_memory && !is_chosen && options.common.command.is_empty() {
        bail!("failed to watch: name a process by --pid PID, a command behind --, or count for all by --watch-all");
    }
    if !filter.is_of_host()? {
        bail!(
            "failed to watch: memory is read by the PIDs that processes have on the host, run this in the host's pid namespace"
        );
    }
    Ok(())
}

/// What a run reads and writes.
struct Reading<'run> {
    collector: Collector<'run>,
    sink: Sink,
    options: &'run Options,
}

/// Where records and pages go.
struct Sink {
    writer: Writer,
    dump: Option<Dump>,
    modules: Option<Modules>,
    host: String,
}

impl Sink {
    fn take(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Mapping(mapping) => {
                if let (Some(modules), Some(dump)) = (&mut self.modules, &mut self.dump) {
                    modules.see(&mapping, dump);
                }
                self.writer.write(&*mapping)
            }
            Item::Header(page) => {
                if let Some(modules) = &mut self.modules {
                    modules.keep(&page);
                }
                Ok(())
            }
            Item::Page(page) => {
                if let Some(modules) = self.modules.as_mut().filter(|_| page.mapping_name.is_none()) {
                    modules.keep(&page);
                }
                let record = match &mut self.dump {
                    Some(dump) => dump.store(&page, &self.host),
                    None => PageRecord::new(&page, &self.host, None),
                };
                self.writer.write(&record)
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(dump) = &mut self.dump {
            dump.flush();
        }
        self.writer.flush()
    }

    /// Rebuilds the modules that have been seen since the last time.
    fn rebuild(&mut self) {
        if let (Some(modules), Some(dump)) = (&mut self.modules, &mut self.dump) {
            modules.rebuild(dump);
        }
    }
}

impl Reading<'_> {
    /// Begins with the processes that are there already.
    fn begin(&mut self) -> Result<()> {
        for &pid in &self.options.common.filter.pids {
            self.collector.attach(pid, &mut |item| self.sink.take(item))?;
            for child in self.options.follow.then(|| descendants(pid)).into_iter().flatten() {
                // It may have ended meanwhile.
                let _ = self.collector.attach(child, &mut |item| self.sink.take(item));
            }
        }
        self.sink.flush()
    }
}

impl Reader for Reading<'_> {
    /// It says itself when they have, and their descendants, if these are followed.
    const ENDS_WITH_PIDS: bool = false;

    const BATCH: usize = BATCH;

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.collector.as_fd()
    }

    fn drain(&mut self) -> Result<usize> {
        let taken = self.collector.take(&mut |item| self.sink.take(item))?;
        self.sink.flush()?;
        Ok(taken)
    }

    fn has_ended(&self) -> bool {
        self.collector.have_ended(&self.options.common.filter.pids)
    }

    /// Counted from now on: to read much memory may take longer than the interval, and samples wait meanwhile.
    fn next_tick(&self, _last: Instant) -> Option<Instant> {
        Instant::now().checked_add(self.collector.patience(self.options.interval))
    }

    fn tick(&mut self) -> Result<()> {
        self.collector.tick(&mut |item| self.sink.take(item))?;
        self.sink.rebuild();
        self.sink.flush()
    }

    fn hurry(&mut self) {
        self.collector.hurry();
        if let Some(modules) = &mut self.sink.modules {
            modules.hurry();
        }
    }

    fn finish(&mut self) -> Result<End> {
        self.collector.finish(&mut |item| self.sink.take(item))?;
        self.sink.rebuild();
        self.sink.flush()?;
        let mut counters = self.collector.counters()?;
        counters.losses.add(WRITE_FAILED, self.sink.dump.as_ref().map_or(0, Dump::failed));
        counters.losses.add(READS_FAILED, self.sink.modules.as_ref().map_or(0, Modules::failed));
        self.sink.writer.end(|reason, records| counters.losses.add(reason, records))?;
        let lost = counters.losses.lost_any();
        Ok(End { tally: Some(tally(&counters)), lost, incomplete: lost })
    }
}

/// The processes that descend from this one now.
fn descendants(pid: u32) -> Vec<u32> {
    let Ok(all) = procfs::process::all_processes() else { return Vec::new() };
    let parents: Vec<(u32, u32)> = all
        .filter_map(|process| host::of_process::<Stat>(process.ok()?.pid().cast_unsigned(), "stat").ok())
        .filter_map(|stat| Some((u32::try_from(stat.pid).ok()?, u32::try_from(stat.ppid).ok()?)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
    }
    found.split_off(1)
}

/// What is watched, for the line on standard error.
fn subject(options: &Options) -> String {
    let who = options.common.subject_of(options.follow);
    let what = match (options.executable_memory, options.all) {
        (true, _) => "anonymous memory that becomes executable",
        (false, true) => "mapping calls",
        (false, false) => "memory that becomes executable",
    };
    format!("{who} for {what}")
}

/// The counters in one line.
fn tally(counters: &Counters) -> String {
    format!("{} calls, {} pages read in the kernel; lost: {}", counters.calls, counters.pages, counters.losses.line())
}
