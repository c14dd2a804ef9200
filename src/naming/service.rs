//! The queue between those that count and the thread that gives jobs to the children. Whoever counts hands in jobs and takes answers, and
//! waits for neither.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::clerk::{Clerk, WAIT_MAX};
use super::job::{Job, Named, Skeleton};
use super::kept::Kept;
use super::owner::Owner;
use super::patience::Patience;
use super::queue::{FairQueue, Ticket, Waiting};
use super::search::SearchPath;
use crate::debuginfod::Client;
use crate::evidence::Failure;

/// Jobs that are done, each owner's in their order.
pub(crate) struct Naming {
    search: SearchPath,
    /// What fetches debug files, until the first job comes. `None` means that nothing is fetched.
    client: Option<Client>,
    /// Copies of files that were deleted or replaced. `None` means that none are kept.
    kept: Option<Arc<Kept>>,
    /// `None` means that nothing has been asked yet.
    desk: Option<Desk>,
    /// Readable when there are answers, and now and then while one takes long.
    ready: Arc<EventFd>,
    waiting: usize,
    last: Ticket,
}

/// The answer to a job.
pub(crate) struct Answer {
    pub owner: Owner,
    pub ticket: Ticket,
    pub named: Named,
}

/// The near end of both queues.
struct Desk {
    jobs: Arc<Jobs>,
    done: Receiver<Answer>,
}

/// The jobs that wait.
#[derive(Default)]
struct Jobs {
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: FairQueue<Job>,
    /// Nobody wants names any more.
    is_closed: bool,
}

impl Naming {
    /// Starts nothing until the first job comes. Debug files are looked for in `search` before the system's own folder.
    ///
    /// # Errors
    /// If there can't be more descriptors.
    pub(crate) fn new(search: impl Into<SearchPath>) -> Result<Self> {
        let ready = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context("failed to make an eventfd for the names")?;
        let search = search.into();
        Ok(Self { search, client: None, kept: None, desk: None, ready: Arc::new(ready), waiting: 0, last: 0 })
    }

    /// The same, with what the client has fetched and fetches.
    ///
    /// # Errors
    /// As [`Naming::new`].
    pub(crate) fn with_servers(debug_dirs: Vec<PathBuf>, client: Client) -> Result<Self> {
        let search = SearchPath { debug_dirs, cache: Some(client.folder().to_owned()) };
        Ok(Self { client: Some(client), ..Self::new(search)? })
    }

    /// From now on, files that go while processes run them are kept for those that crash later. To be called before the first job.
    pub(crate) fn keep_files(&mut self) {
        self.kept = Kept::start();
    }

    /// How many files could not be kept since then.
    pub(crate) fn files_not_kept(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.lost())
    }

    /// How many jobs have no answer yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Hands in a job. Its answer comes after those of all jobs that its owner has handed in before.
    pub(crate) fn submit(&mut self, owner: Owner, job: Job) -> Ticket {
        self.waiting += 1;
        self.last += 1;
        let desk = self.desk.get_or_insert_with(|| {
            Desk::open(self.search.clone(), self.client.take(), self.kept.clone(), self.ready.clone())
        });
        desk.jobs.lock().jobs.push(owner, Waiting { ticket: self.last, since: Instant::now(), job });
        desk.jobs.came.notify_one();
        self.last
    }

    /// The next answer, if it comes before `until`. `Err` means that none will come any more.
    ///
    /// # Errors
    /// Why.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Option<Answer>, Failure> {
        // One that was announced before is asked for without a look at the announcements: these are system calls, and of many answers in a row
        // only the last one needs them.
        let known = self.desk.as_ref().filter(|_| self.waiting > 0).and_then(|desk| desk.done.try_recv().ok());
        if let Some(answer) = known {
            self.waiting -= 1;
            return Ok(Some(answer));
        }
        // In any case: an answer may have been taken before it was announced. All are asked for below; another one makes it readable again.
        let _ = self.ready.read();
        let Some(desk) = self.desk.as_ref().filter(|_| self.waiting > 0) else { return Ok(None) };
        match desk.done.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(answer) => {
                self.waiting -= 1;
                if self.waiting > 0 {
                    // More may have come with the one that was read.
                    let _ = self.ready.write(1);
                }
                Ok(Some(answer))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                (self.desk, self.waiting) = (None, 0);
                Err(Failure::Unavailable)
            }
        }
    }

    /// Nobody waits for this answer any more. It comes all the same if it is being made.
    pub(crate) fn forget(&mut self, owner: &Owner, ticket: Ticket) {
        if self.desk.as_ref().is_some_and(|desk| desk.jobs.lock().jobs.forget(owner, ticket)) {
            self.waiting -= 1;
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
        // They are asked for one by one, so that nobody shares.
        self.submit(Owner::User(0), job);
        match self.await_next(patience) {
            Ok(answer) => answer.map_or_else(|| Named::failed(&skeleton, Failure::TimedOut), |answer| answer.named),
            Err(failure) => Named::failed(&skeleton, failure),
        }
    }

    /// Takes the answers that have come late, which nobody waits for any more.
    pub(crate) fn take_late(&mut self) {
        while matches!(self.next(Instant::now()), Ok(Some(_))) {}
    }

    fn await_next(&mut self, patience: &mut Patience) -> Result<Option<Answer>, Failure> {
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

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job whose turn it is. `None` means that no more will come.
    fn take(&self) -> Option<(Owner, Waiting<Job>)> {
        let mut queue = self.lock();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(taken) = queue.jobs.take(Instant::now().checked_sub(WAIT_MAX)) {
                return Some(taken);
            }
            queue = self.came.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Desk {
    fn open(search: SearchPath, client: Option<Client>, kept: Option<Arc<Kept>>, ready: Arc<EventFd>) -> Self {
        let (answers, done) = mpsc::channel();
        let jobs = Arc::new(Jobs::default());
        let to_do = jobs.clone();
        // Without a thread the end of the answers is gone, which `next` reports.
        let _ = thread::Builder::new()
            .name("naming".to_owned())
            .spawn(move || serve(&mut Clerk::with_sources(search, client, kept), &to_do, &answers, &ready));
        Self { jobs, done }
    }
}

/// The thread cannot be waited for: a child may keep it.
impl Drop for Desk {
    fn drop(&mut self) {
        self.jobs.lock().is_closed = true;
        self.jobs.came.notify_one();
    }
}

fn serve(clerk: &mut Clerk, jobs: &Jobs, answers: &Sender<Answer>, ready: &EventFd) {
    while let Some((owner, Waiting { ticket, since, job })) = jobs.take() {
        let begun = Instant::now();
        let named = clerk.name(&owner, job, since, &|| {
            // Whoever counts looks whether it must wait for this one.
            let _ = ready.write(1);
            jobs.lock().jobs.has_others(&owner)
        });
        jobs.lock().jobs.charge(&owner, begun.elapsed());
        if answers.send(Answer { owner, ticket, named }).is_err() {
            break;
        }
        let _ = ready.write(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::naming::clerk::DEADLINE;
    use crate::naming::job::tests::job;

    fn deep(depth: usize) -> Job {
        let mut job = job();
        job.more = vec![job.walk.frames[0]; depth];
        job
    }

    fn is_readable(naming: &Naming) -> bool {
        let mut fds = [nix::poll::PollFd::new(naming.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn answers_come_in_the_order_of_the_jobs() {
        let mut naming = Naming::new(Vec::new()).unwrap();
        assert!(naming.next(Instant::now()).unwrap().is_none());
        let tickets: Vec<Ticket> = (1..=3).map(|depth| naming.submit(Owner::User(1), deep(depth))).collect();
        for (depth, ticket) in (1..=3).zip(tickets) {
            let answer = naming.next(Instant::now() + DEADLINE * 4).unwrap().unwrap();
            assert_eq!(
                (answer.ticket, answer.named.described.more.len(), answer.named.described.functions.len()),
                (ticket, depth, 1)
            );
        }
        assert_eq!(naming.waiting(), 0);
    }

    #[test]
    fn an_answer_that_was_taken_wakes_nobody() {
        let mut naming = Naming::new(Vec::new()).unwrap();
        naming.submit(Owner::User(1), job());
        naming.next(Instant::now() + DEADLINE * 4).unwrap().unwrap();
        // It is announced after it is sent.
        let announced = Instant::now() + Duration::from_secs(10);
        while !is_readable(&naming) && Instant::now() < announced {
            thread::yield_now();
        }
        assert!(naming.next(Instant::now()).unwrap().is_none());
        assert!(!is_readable(&naming));
    }

    #[test]
    fn what_is_forgotten_has_no_answer() {
        let mut naming = Naming::new(Vec::new()).unwrap();
        let owner = Owner::User(1);
        let tickets: Vec<Ticket> = (1..=20).map(|depth| naming.submit(owner.clone(), deep(depth))).collect();
        for ticket in &tickets[5..15] {
            naming.forget(&owner, *ticket);
            naming.forget(&owner, *ticket);
        }
        let mut answered = Vec::new();
        while naming.waiting() > 0 {
            answered.push(naming.next(Instant::now() + DEADLINE * 4).unwrap().unwrap().ticket);
        }
        // The first may have been done before they were forgotten.
        assert!(answered.starts_with(&tickets[..5]) && answered.ends_with(&tickets[15..]), "{answered:?}");
        assert!(naming.next(Instant::now()).unwrap().is_none());
    }
}
