//! The keeper: a child that copies a program or library when it is deleted or replaced while processes run it, so that a crash of them has
//! names. The file itself is not held open, and no mount is kept busy: it is watched by inotify, and once it has gone, /proc still leads to
//! it through those that run it. It parses no file.
//!
//! It looks for files by itself, every few seconds: nothing is attached to the kernel for it. So a program that is replaced in its first
//! seconds has no copy.

mod avoided;
mod copying;
mod processes;
mod room;
mod said;
mod watched;
mod watching;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use rustix::fs::inotify::{self, CreateFlags};

pub(super) use self::avoided::Avoided;
use self::copying::Copying;
use self::processes::Processes;
use self::room::Room;
pub(super) use self::said::{COPIES_MAX, Copied, Said};
use self::watched::{State, Table, Watch};
use self::watching::Refusal;
use super::confine;
use super::maps::{self, MEMFD, process};
use super::opener::mounts::Mounts;
use crate::evidence::FileId;
use crate::host;
use crate::time::boottime_ns;

/// How often it looks for new processes.
const ROUND: Duration = Duration::from_secs(2);

/// A twentieth of a processor: whoever is left waits for the next round.
const ROUND_COST: u32 = 20;

/// More seldom where one process alone takes longer. But so often in any case, and so it says that it lives.
const ROUND_MAX: Duration = Duration::from_secs(20);

/// It rests for so many times as long as it has worked on files that go, or on what the kernel says of files.
const WORK_COST: u32 = 4;

/// How long it works at once.
const WORK: Duration = Duration::from_millis(10);

/// Events come in bursts.
const BURST: Duration = Duration::from_millis(5);

/// How many files are watched. Each takes about 1 KiB of the kernel's.
const WATCHES_MAX: usize = 4096;

/// How many files of one process are looked at.
const FILES_MAX: usize = 1024;

/// So many files that can't be watched are remembered.
const REFUSED_MAX: usize = 4096;

/// So many mounts are known.
const MOUNTS_MAX: usize = 1024;

/// A file that no process runs any more, as far as all have been looked at so often, is no longer watched.
const IDLE_CYCLES: u64 = 2;

/// The child. `arguments`: what has kept the one before.
pub(super) fn serve(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let avoided = Avoided::of(arguments);
    super::settle::settle(c"fl-keeper");
    let served = rustix::stdio::stdin().try_clone_to_owned().and_then(|parent| {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        confine::keeper();
        Keeper::new(inotify, parent, avoided).run()
    });
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A file that a process has been seen to run.
struct Seen {
    id: FileId,
    link: PathBuf,
    is_in_memory: bool,
}

struct Keeper {
    inotify: OwnedFd,
    table: Table,
    watching: Room,
    processes: Processes,
    copying: Copying,
    /// Files that there was no room for, and that are counted.
    refused: HashSet<FileId>,
    /// They are asked for anew in each cycle.
    mounts: Mounts,
    /// Those of the process that is looked at, once they were needed: anybody can make very many.
    mounts_of_process: Option<Mounts>,
    avoided: Avoided,
    last_number: u64,
    /// Files that no process is known to run: all are to be asked.
    homeless: Vec<Watch>,
    /// Those of them that all are being asked for.
    sought: Vec<Watch>,
    /// Who is still to be asked for these.
    unasked: Vec<u32>,
}

impl Keeper {
    fn new(inotify: OwnedFd, parent: OwnedFd, avoided: Avoided) -> Self {
        Self {
            inotify,
            table: Table::default(),
            watching: Room::new(WATCHES_MAX, 0),
            processes: Processes::default(),
            copying: Copying::new(parent),
            refused: HashSet::new(),
            mounts: Mounts::new(),
            mounts_of_process: None,
            avoided,
            last_number: 0,
            homeless: Vec::new(),
            sought: Vec::new(),
            unasked: Vec::new(),
        }
    }

    /// Ends when nobody takes what it says.
    fn run(&mut self) -> io::Result<()> {
        self.round(ROUND_MAX / ROUND_COST)?;
        // For months it does little.
        host::release_memory();
        let (mut next_round, mut next_work, mut next_events) = (Instant::now() + ROUND, Instant::now(), Instant::now());
        loop {
            if next_events <= Instant::now() {
                let before = ran();
                self.take_events()?;
                next_events = Instant::now() + ran().saturating_sub(before) * WORK_COST;
            }
            if next_round <= Instant::now() {
                let before = ran();
                self.round(ROUND / ROUND_COST)?;
                self.copying.say(&Said::Lives)?;
                next_round = Instant::now() + (ran().saturating_sub(before) * ROUND_COST).clamp(ROUND, ROUND_MAX);
            }
            if next_work <= Instant::now() && self.has_work() {
                let before = ran();
                self.work()?;
                next_work = Instant::now() + ran().saturating_sub(before) * WORK_COST;
            }
            self.copying.forget_old()?;
            self.wait(if self.has_work() { next_round.min(next_work) } else { next_round }, next_events)?;
        }
    }

    fn has_work(&self) -> bool {
        self.copying.has_any() || !self.homeless.is_empty() || !self.sought.is_empty()
    }

    /// Waits for what the kernel says of files, which is taken from `next_events` on.
    fn wait(&self, next: Instant, next_events: Instant) -> io::Result<()> {
        let takes_events = next_events <= Instant::now();
        let until = if takes_events { next } else { next.min(next_events) };
        let of_events = if takes_events { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds =
            [PollFd::new(self.inotify.as_fd(), of_events), PollFd::new(self.copying.parent(), PollFlags::empty())];
        match ppoll(&mut fds, Some(TimeSpec::from(until.saturating_duration_since(Instant::now()))), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [events, parent] = fds.map(|fd| fd.any().unwrap_or(true));
        if parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if events {
            std::thread::sleep(BURST);
        }
        Ok(())
    }

    /// Looks at new processes, and at some of the others, for so long at most.
    fn round(&mut self, most: Duration) -> io::Result<()> {
        let (cycle, before) = (self.processes.cycle, ran());
        self.processes.begin_round(&maps::pids());
        while ran().saturating_sub(before) < most
            && let Some(pid) = self.processes.next_due()
        {
            self.look(pid)?;
        }
        if self.processes.cycle != cycle {
            self.forget_idle()?;
        }
        Ok(())
    }

    fn forget_idle(&mut self) -> io::Result<()> {
        let cycle = self.processes.cycle;
        for watch in self.table.all(|watched| watched.cycle + IDLE_CYCLES < cycle) {
            if let Ok(watch) = i32::try_from(watch) {
                // If it has gone meanwhile, there is none.
                let _ = inotify::remove_watch(&self.inotify, watch);
            }
            self.has_ended(watch)?;
        }
        self.mounts.clear();
        Ok(())
    }

    /// Looks at what a process runs.
    fn look(&mut self, pid: u32) -> io::Result<()> {
        if self.avoided.pids.contains(&pid) {
            return Ok(());
        }
        self.mounts_of_process = None;
        let exe = process(pid).join("exe");
        // A thread of the kernel's has none.
        let Ok(program) = fs::read_link(&exe) else { return Ok(()) };
        let Ok(user) = fs::metadata(process(pid)).map(|metadata| metadata.uid()) else { return Ok(()) };
        let mut files: HashMap<FileId, Seen> = HashMap::new();
        maps::each_code(pid, |code| {
            if files.len() >= FILES_MAX {
                return ControlFlow::Break(());
            }
            files.entry(code.id).or_insert_with(|| Seen {
                id: code.id,
                link: if code.name == program.as_os_str().as_bytes() { exe.clone() } else { code.link(pid) },
                is_in_memory: code.name.starts_with(MEMFD),
            });
            ControlFlow::Continue(())
        });
        for seen in files.into_values() {
            self.see(pid, user, seen)?;
        }
        Ok(())
    }

    fn see(&mut self, pid: u32, user: u32, seen: Seen) -> io::Result<()> {
        let cycle = self.processes.cycle;
        if let Some(watched) = self.table.seen(seen.id) {
            watched.is_held(pid, seen.link, cycle);
            return Ok(());
        }
        let id = seen.id;
        match self.watch(pid, user, seen)? {
            Ok(()) => {
                self.refused.remove(&id);
            }
            Err(Refusal::Elsewhere) => {}
            Err(Refusal::NoRoom) => {
                if self.refused.len() >= REFUSED_MAX {
                    self.refused.clear();
                }
                if self.refused.insert(id) {
                    self.copying.lose()?;
                }
            }
        }
        Ok(())
    }

    /// Something has happened to a file.
    fn ask(&mut self, watch: Watch) {
        if let Some(watched) = self.table.get(watch).filter(|watched| watched.state == State::Lies) {
            watched.state = State::Asked;
            self.copying.ask(watch);
        }
    }

    /// No process runs a file any more.
    fn has_ended(&mut self, watch: Watch) -> io::Result<()> {
        let Some(watched) = self.table.remove(watch) else { return Ok(()) };
        self.watching.give_back(watched.user, 0);
        let at_ns = watched.unwatched_ns.map_or_else(now_ns, Ok)?;
        self.copying.has_ended(&watched, at_ns)
    }

    /// All processes have been looked at because of this file.
    fn settle(&mut self, watch: Watch) -> io::Result<()> {
        let Some(watched) = self.table.get(watch) else { return Ok(()) };
        match (watched.unwatched_ns, watched.look()) {
            (Some(_), _) => {
                if !self.watch_again(watch) {
                    self.has_ended(watch)?;
                }
            }
            (None, Some(_)) => self.copying.ask(watch),
            (None, None) => watched.state = State::Lies,
        }
        Ok(())
    }

    /// Looks at the files that something has happened to, and copies those that have gone.
    fn work(&mut self) -> io::Result<()> {
        self.seek(Instant::now() + WORK / 2)?;
        let until = Instant::now() + WORK / 2;
        while Instant::now() < until
            && let Some(watch) = self.copying.next()
        {
            let Some(watched) = self.table.get(watch) else { continue };
            match watched.look() {
                None => self.homeless.push(watch),
                Some((_, false)) => watched.state = State::Lies,
                Some((file, true)) => self.copying.copy(watched, &file)?,
            }
        }
        Ok(())
    }

    /// Looks for files that no process is known to run in all: one that is not remembered may run them.
    fn seek(&mut self, until: Instant) -> io::Result<()> {
        if self.sought.is_empty() && !self.homeless.is_empty() {
            self.sought = std::mem::take(&mut self.homeless);
            self.unasked = maps::pids();
        }
        while Instant::now() < until
            && let Some(pid) = self.unasked.pop()
        {
            self.look(pid)?;
        }
        if self.unasked.is_empty() {
            for watch in std::mem::take(&mut self.sought) {
                self.settle(watch)?;
            }
        }
        Ok(())
    }
}

/// CLOCK_BOOTTIME
fn now_ns() -> io::Result<u64> {
    boottime_ns().map_err(io::Error::other)
}

/// How long this process has run on a processor.
fn ran() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
