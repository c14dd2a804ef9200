//! The thread that gives jobs to the children, one after another, and replaces them when they fail. Whoever counts hands in jobs and takes
//! answers, and waits for neither.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::children::{Children, Left};
use super::confine::Fences;
use super::frame::{ANSWER_BYTES_MAX, JOB_BYTES_MAX, receive, send};
use super::job::{Job, Named, Skeleton};
use super::patience::Patience;
use super::served::Reply;
use crate::evidence::{Failure, FileId};

/// How long one record may take. Time in which the children wait for a processor does not count, that in which they wait for a file
/// system counts half.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long it may take on a host that is so busy that the children hardly run.
const BUSY_DEADLINE: Duration = Duration::from_secs(40);

/// How often it is looked at what the children do, while a record takes long.
const LOOK: Duration = Duration::from_millis(250);

/// How long a record may wait for those before it.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A file that a record has failed in is left alone for so long.
const PAUSE: Duration = Duration::from_secs(60);

/// How many such files are remembered; all are forgotten when there are more.
const FAILED_MAX: usize = 1024;

/// How long a child may take to die.
const DYING: Duration = Duration::from_millis(100);

/// Jobs that are done in turn.
pub(crate) struct Naming {
    debug_dirs: Vec<PathBuf>,
    /// `None` means that nothing has been asked yet.
    desk: Option<Desk>,
    /// Readable when there are answers.
    ready: Arc<EventFd>,
    waiting: usize,
}

/// The thread's ends of two queues.
struct Desk {
    jobs: Sender<Queued>,
    done: Receiver<Named>,
}

struct Queued {
    job: Job,
    since: Instant,
}

impl Naming {
    /// Starts nothing until the first job comes. Debug files are looked for in `debug_dirs` before the system's own folder.
    ///
    /// # Errors
    /// If there can't be more descriptors.
    pub(crate) fn new(debug_dirs: Vec<PathBuf>) -> Result<Self> {
        let ready = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context("failed to make an eventfd for the names")?;
        Ok(Self { debug_dirs, desk: None, ready: Arc::new(ready), waiting: 0 })
    }

    /// How many jobs have no answer yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Hands in a job. Its answer comes after those of all jobs before it.
    pub(crate) fn submit(&mut self, job: Job) {
        self.waiting += 1;
        let desk = self.desk.get_or_insert_with(|| Desk::open(self.debug_dirs.clone(), self.ready.clone()));
        // If the thread is gone, `next` reports it.
        let _ = desk.jobs.send(Queued { job, since: Instant::now() });
    }

    /// The next answer, in the order of the jobs, if it comes before `until`. `Err` means that none will come any more.
    ///
    /// # Errors
    /// Why.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Option<Named>, Failure> {
        let Some(desk) = self.desk.as_ref().filter(|_| self.waiting > 0) else { return Ok(None) };
        // It is asked for its answers below; another one makes it readable again.
        let _ = self.ready.read();
        match desk.done.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(named) => {
                self.waiting -= 1;
                if self.waiting > 0 {
                    // More may have come with the one that was read.
                    let _ = self.ready.write(1);
                }
                Ok(Some(named))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                (self.desk, self.waiting) = (None, 0);
                Err(Failure::Unavailable)
            }
        }
    }

    /// Hands in a job and waits for its answer as long as `patience` says: first for those that were late before. Not to be mixed with
    /// [`Naming::submit`].
    pub(crate) fn ask(&mut self, job: Job, patience: &mut Patience) -> Named {
        let skeleton = Skeleton::from(&job);
        while self.waiting > 0 {
            match self.await_next(patience) {
                Ok(Some(_late)) => {}
                Ok(None) => return Named::failed(&skeleton, Failure::Busy),
                Err(failure) => return Named::failed(&skeleton, failure),
            }
        }
        self.submit(job);
        match self.await_next(patience) {
            Ok(answer) => answer.unwrap_or_else(|| Named::failed(&skeleton, Failure::TimedOut)),
            Err(failure) => Named::failed(&skeleton, failure),
        }
    }

    /// Takes the answers that have come late, which nobody waits for any more.
    pub(crate) fn take_late(&mut self) {
        while matches!(self.next(Instant::now()), Ok(Some(_))) {}
    }

    fn await_next(&mut self, patience: &mut Patience) -> Result<Option<Named>, Failure> {
        loop {
            let answer = self.next(Instant::now())?;
            if answer.is_some() || !patience.wait(self.ready.as_fd()) {
                return Ok(answer);
            }
        }
    }

    /// Gives up what was not answered.
    pub(crate) fn abandon(&mut self) {
        (self.desk, self.waiting) = (None, 0);
    }
}

impl AsFd for Naming {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl Desk {
    fn open(debug_dirs: Vec<PathBuf>, ready: Arc<EventFd>) -> Self {
        let ((jobs, to_do), (answers, done)) = (mpsc::channel::<Queued>(), mpsc::channel());
        let mut clerk = Clerk { debug_dirs, children: None, left: Left::default(), failed: HashMap::new(), last_id: 0 };
        // Without a thread the ends of the queues are gone, which `next` reports.
        let _ = thread::Builder::new().name("naming".to_owned()).spawn(move || {
            while let Ok(Queued { job, since }) = to_do.recv() {
                if answers.send(clerk.name(job, since)).is_err() {
                    break;
                }
                let _ = ready.write(1);
            }
        });
        Self { jobs, done }
    }
}

/// What a namer gives up here. `None` means that there can be none.
pub(crate) fn fences() -> Option<Fences> {
    let children = Children::start(&[]).ok()?;
    children.namer.set_read_timeout(Some(DEADLINE)).ok()?;
    match receive(&mut &children.namer, ANSWER_BYTES_MAX) {
        Ok(Some(Reply::Ready(fences))) => Some(fences),
        _ => None,
    }
}

struct Clerk {
    debug_dirs: Vec<PathBuf>,
    children: Option<Children>,
    left: Left,
    /// When a record failed in them.
    failed: HashMap<FileId, Instant>,
    last_id: u64,
}

impl Clerk {
    fn name(&mut self, mut job: Job, since: Instant) -> Named {
        let skeleton = Skeleton::from(&job);
        if since.elapsed() > WAIT_MAX {
            return Named::failed(&skeleton, Failure::Busy);
        }
        for file in &mut job.opening.files {
            file.refused = file.refused.or(self.has_failed(file.id).then_some(Failure::FailedBefore));
        }
        if let Some(children) = self.children.take_if(|children| !children.are_alive()) {
            children.leave(&mut self.left, None, DYING);
        }
        loop {
            let is_new = self.children.is_none();
            if is_new && self.left.has_room() {
                self.children = Children::start(&self.debug_dirs).ok();
            }
            let Some(children) = self.children.take() else { return Named::failed(&skeleton, Failure::Unavailable) };
            self.last_id += 1;
            let mut blamed = None;
            let answer = match ask(&children, self.last_id, &job, &mut blamed) {
                Ok(named) if named.fits(&skeleton) => {
                    self.children = Some(children);
                    self.suspect_those_that_ended_the_opener(&job, &named);
                    return named;
                }
                answer => answer,
            };
            let is_late = answer.is_err_and(|error| error.kind() == ErrorKind::TimedOut);
            let blamed = blamed.and_then(|number| job.opening.files.get(number));
            // The way to a file of a disk may lead through another file system, which is the one that doesn't answer.
            let device = blamed.map(|file| file.id).filter(|id| id.major() == 0).map(|id| id.device);
            children.leave(&mut self.left, device, DYING);
            if let Some(file) = blamed {
                self.suspect(file.id);
            } else if !is_new && !is_late {
                // They ended before this record came.
                continue;
            }
            return Named::failed(&skeleton, if is_late { Failure::TimedOut } else { Failure::Died });
        }
    }

    fn suspect_those_that_ended_the_opener(&mut self, job: &Job, named: &Named) {
        for (file, named) in job.opening.files.iter().zip(&named.files) {
            if named.failure == Some(Failure::Died) {
                self.suspect(file.id);
            }
        }
    }

    fn suspect(&mut self, id: FileId) {
        if self.failed.len() >= FAILED_MAX {
            self.failed.clear();
        }
        self.failed.insert(id, Instant::now());
    }

    /// Did a record fail in this file lately, or does a child that was left behind still wait for its device?
    fn has_failed(&mut self, id: FileId) -> bool {
        self.failed.get(&id).is_some_and(|when| when.elapsed() < PAUSE) || self.left.waits_for(id.device)
    }
}

/// Gives a job to the children. `blamed` becomes the number of the file that was looked into last.
fn ask(children: &Children, id: u64, job: &Job, blamed: &mut Option<usize>) -> io::Result<Named> {
    for to in [&children.opener, &children.namer] {
        to.set_write_timeout(Some(DEADLINE))?;
    }
    let now = Instant::now();
    let mut from =
        Patient { children, begun: now, looked: now, spent: Duration::ZERO, ran: children.ran().unwrap_or_default() };
    send(&mut &children.opener, &(id, &job.opening), JOB_BYTES_MAX)?;
    send(&mut &children.namer, &(id, job), JOB_BYTES_MAX)?;
    loop {
        match receive(&mut from, ANSWER_BYTES_MAX)? {
            Some(Reply::Ready(_)) => {}
            Some(Reply::Begins(number)) => *blamed = Some(number),
            Some(Reply::Done(named)) => return Ok(*named),
            None => return Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads what the namer says until the deadline.
struct Patient<'a> {
    children: &'a Children,
    begun: Instant,
    /// The last look at the children, and how long they had run then.
    looked: Instant,
    ran: Duration,
    /// How much of [`DEADLINE`] is used up.
    spent: Duration,
}

impl Patient<'_> {
    /// Counts the time since the last look: only what they have run of it, if one of them wants to run. If not, they wait for a file
    /// system.
    fn look(&mut self) {
        let passed = self.looked.elapsed();
        self.looked += passed;
        self.spent += match self.children.ran() {
            Some(ran) if self.children.want_to_run() => {
                let since = ran.saturating_sub(self.ran);
                self.ran = ran;
                since.min(passed)
            }
            // A slow disk may be a busy one: to read from it takes the first children of a host without a warm cache seconds.
            _ => passed / 2,
        };
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.looked.elapsed() >= LOOK {
                self.look();
            }
            if self.spent >= DEADLINE || self.begun.elapsed() >= BUSY_DEADLINE {
                return Err(ErrorKind::TimedOut.into());
            }
            self.children.namer.set_read_timeout(Some(LOOK))?;
            match (&mut &self.children.namer).read(into) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::job::tests::job;

    #[test]
    fn answers_come_in_the_order_of_the_jobs() {
        let mut naming = Naming::new(Vec::new()).unwrap();
        assert!(naming.next(Instant::now()).unwrap().is_none());
        for depth in 1..=3 {
            let mut job = job();
            job.more = vec![job.walk.frames[0]; depth];
            naming.submit(job);
        }
        for depth in 1..=3 {
            let named = naming.next(Instant::now() + DEADLINE * 4).unwrap().unwrap();
            assert_eq!((named.more.len(), named.functions.len()), (depth, 1));
        }
        assert_eq!(naming.waiting(), 0);
    }

    #[test]
    fn a_file_that_failed_is_left_alone() {
        let mut clerk =
            Clerk { debug_dirs: Vec::new(), children: None, left: Left::default(), failed: HashMap::new(), last_id: 0 };
        clerk.suspect(FileId { inode: 1, device: 1 });
        let named = clerk.name(job(), Instant::now());
        assert_eq!(
            named.files.iter().map(|file| file.failure).collect::<Vec<_>>(),
            [Some(Failure::FailedBefore), None]
        );
    }

    #[test]
    fn who_waits_too_long_goes_without_names() {
        let mut clerk =
            Clerk { debug_dirs: Vec::new(), children: None, left: Left::default(), failed: HashMap::new(), last_id: 0 };
        let long_ago = Instant::now().checked_sub(WAIT_MAX * 2).unwrap();
        assert_eq!(clerk.name(job(), long_ago).files[0].failure, Some(Failure::Busy));
    }
}
