//! Reads a process's mappings, its memory and the files that it maps, in a child: a file system may keep whoever asks it waiting, without end
//! and deaf to SIGKILL, and so may the process by holding its own memory. A child that is kept is left behind.
//!
//! The child has the privileges to open, and parses nothing but what the kernel has written.

mod child;
mod patience;
mod range;

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::child::{Ending, Running, Starter};
use self::patience::Patience;
use super::record::{PageCounts, Source};
use super::target::Memory;
use crate::evidence::Region;
use crate::naming;
use crate::page;

pub(crate) use child::serve;

/// How long an order may be: it has the addresses of the pages that are there already. Also how long a page may be.
const ORDER_BYTES_MAX: usize = 1 << 20;

/// How long the list of a process's mappings may be.
const REGIONS_BYTES_MAX: usize = 64 << 20;

/// How many children that don't end are left behind.
const LEFT_MAX: usize = 4;

/// A process, or a file system, that has kept a child waiting is left alone for so long, and as long as the child waits.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a child may take to die.
const DYING: Duration = Duration::from_millis(50);

/// The pages of a range that the kernel program has read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct PagesRead {
    /// The pages' addresses.
    pub pages: HashSet<u64>,
    /// The address up to which it has looked for them: a page that it doesn't have was not in memory.
    pub looked_to: u64,
}

/// What is asked for, and of which process.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    pid: u32,
    question: Question,
}

#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Regions,
    /// So many pages from this one on, of memory alone.
    Pages {
        start: u64,
        count: u64,
    },
    Range(Box<Wanted>),
}

/// Pages of a range of a mapping, less those that the kernel program had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub region: Region,
    pub range: (u64, u64),
    pub have: PagesRead,
    /// So many bytes at most.
    pub room: u64,
}

/// A page that was read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PageRead {
    pub address: u64,
    pub source: Source,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It begins: its thread.
    Ready(i32),
    Page(PageRead),
    /// The mappings, or the error's number.
    Regions(Result<Vec<Region>, i32>),
    /// That was the last page; of a range, how many became what, and the bytes that may still be read.
    Done(Option<(PageCounts, u64)>),
}

/// What a child that was left behind waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Keeper {
    Process(u32),
    /// A file system.
    Device(u64),
}

/// Asks the child, and waits no longer than [`Patience`] says.
pub(super) struct Fetcher {
    starter: Starter,
    running: Option<Running>,
    left: Vec<(Ending, Vec<Keeper>)>,
    paused: HashMap<Keeper, Instant>,
    patience: Patience,
    failed: u64,
}

impl Fetcher {
    /// Starts nothing until the first question.
    pub(super) fn new() -> Self {
        Self {
            starter: Starter::new(),
            running: None,
            left: Vec::new(),
            paused: HashMap::new(),
            patience: Patience::new(),
            failed: 0,
        }
    }

    /// How many questions have not been answered in time.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// The run is to end now.
    pub(super) fn hurry(&mut self) {
        self.patience.hurry();
    }

    /// The mappings of a process, by address.
    ///
    /// # Errors
    /// If there is no such process, we may not look at it, or it keeps us waiting.
    pub(super) fn regions(&mut self, pid: u32) -> io::Result<Vec<Region>> {
        let mut found = Err(io::Error::new(ErrorKind::TimedOut, "it keeps whoever looks at it waiting"));
        let order = Order { pid, question: Question::Regions };
        self.ask(&order, None, None, &mut |answer| {
            if let Answer::Regions(regions) = answer {
                found = regions.map_err(io::Error::from_raw_os_error);
            }
            Ok::<(), io::Error>(())
        })?;
        found
    }

    /// Reads so many pages from `start` on, and passes those that are there to `take`.
    pub(super) fn pages(
        &mut self,
        pid: u32,
        memory: &Memory,
        (start, count): (u64, u64),
        mut take: impl FnMut(PageRead),
    ) {
        let order = Order { pid, question: Question::Pages { start, count } };
        let _ = self.ask(&order, Some(memory), None, &mut |answer| {
            if let Answer::Page(page) = answer {
                take(page);
            }
            Ok::<(), io::Error>(())
        });
    }

    /// Reads the pages of a range, and passes each to `take`. Returns how many became what; subtracts what was read from `wanted.room`.
    ///
    /// # Errors
    /// The errors of `take`.
    pub(super) fn range<E>(
        &mut self,
        pid: u32,
        memory: Option<&Memory>,
        wanted: &mut Wanted,
        mut take: impl FnMut(PageRead) -> Result<(), E>,
    ) -> Result<PageCounts, E> {
        let (mut read, mut done) = (0, None);
        let device = wanted.region.file().and_then(|file| file.id).filter(|id| id.major() == 0).map(|id| id.device);
        let order = Order { pid, question: Question::Range(Box::new(wanted.clone())) };
        self.ask(&order, memory, device, &mut |answer| match answer {
            Answer::Page(page) => {
                read += 1;
                take(page)
            }
            Answer::Done(counts) => {
                done = counts;
                Ok(())
            }
            Answer::Ready(_) | Answer::Regions(_) => Ok(()),
        })?;
        let Some((counts, room)) = done else {
            let total = (wanted.range.1 - wanted.range.0).div_ceil(page::size());
            let resident = (wanted.have.pages.len() as u64).min(total);
            wanted.room = wanted.room.saturating_sub(read * page::size());
            return Ok(PageCounts {
                total,
                resident,
                read,
                gone: (total - resident).saturating_sub(read),
                ..PageCounts::default()
            });
        };
        wanted.room = room;
        Ok(counts)
    }

    /// Passes the answers to a question to `take`. If they don't come in time, that is counted, and the child left behind.
    fn ask<E>(
        &mut self,
        order: &Order,
        memory: Option<&Memory>,
        device: Option<u64>,
        take: &mut dyn FnMut(Answer) -> Result<(), E>,
    ) -> Result<(), E> {
        let keepers: Vec<Keeper> =
            [Some(Keeper::Process(order.pid)), device.map(Keeper::Device)].into_iter().flatten().collect();
        let Some(running) = self.running_for(&keepers) else {
            self.failed += 1;
            return Ok(());
        };
        self.patience.begin(running.tid.get().is_none());
        if child::order(&running.socket, order, memory).is_ok() {
            let waiting = Waiting { running: &running, patience: &mut self.patience };
            let mut from = BufReader::with_capacity(64 << 10, waiting);
            while let Ok(Some(answer)) = naming::receive::<Answer>(&mut from, REGIONS_BYTES_MAX) {
                let is_last = matches!(answer, Answer::Regions(_) | Answer::Done(_));
                match answer {
                    Answer::Ready(tid) => running.tid.set(Some(tid)),
                    answer => take(answer)?,
                }
                if is_last {
                    self.running = Some(running);
                    return Ok(());
                }
            }
        }
        self.failed += 1;
        self.leave(running, keepers);
        Ok(())
    }

    /// The child, if it may be asked about these, and there can be one.
    fn running_for(&mut self, keepers: &[Keeper]) -> Option<Running> {
        self.left.retain_mut(|(ending, _)| !ending.has_ended());
        self.paused.retain(|_, when| when.elapsed() < PAUSE);
        let is_kept = |keeper: &Keeper| {
            self.paused.contains_key(keeper) || self.left.iter().any(|(_, kept)| kept.contains(keeper))
        };
        if keepers.iter().any(is_kept) {
            return None;
        }
        match self.running.take() {
            Some(running) => Some(running),
            None if self.left.len() < LEFT_MAX => self.starter.start().ok(),
            None => None,
        }
    }

    /// One that did not end soon waits for a file system, or for the process.
    fn leave(&mut self, running: Running, keepers: Vec<Keeper>) {
        self.paused.extend(keepers.iter().map(|keeper| (*keeper, Instant::now())));
        let mut ending = running.end();
        let until = Instant::now() + DYING;
        while !ending.has_ended() {
            if Instant::now() >= until {
                self.left.push((ending, keepers));
                return;
            }
            std::thread::sleep(DYING / 10);
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.leave(running, Vec::new());
        }
    }
}

/// Reads what the child says, as long as there is patience.
struct Waiting<'a> {
    running: &'a Running,
    patience: &'a mut Patience,
}

impl Read for Waiting<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut socket: &UnixStream = &self.running.socket;
        if !self.patience.wait(socket.as_fd(), || self.running.wants_to_run()) {
            return Err(ErrorKind::TimedOut.into());
        }
        let read = socket.read(into)?;
        self.patience.grant(read);
        Ok(read)
    }
}
