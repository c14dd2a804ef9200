//! Gives jobs to the children, one after another, and replaces them when they fail.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::children::{Children, Left};
use super::confine::Fences;
use super::fetching::Fetching;
use super::frame::{ANSWER_BYTES_MAX, JOB_BYTES_MAX, receive, send};
use super::job::{Job, Named, Skeleton};
use super::kept::Kept;
use super::opener::FileOwner;
use super::owner::Owner;
use super::passing::pass;
use super::search::SearchPath;
use super::served::Reply;
use crate::debuginfod::Client;
use crate::evidence::{Failure, FileId};

/// How long one record may take. Time in which the children wait for a processor does not count, that in which they wait for a file
/// system counts half.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// The same for an owner that has lately taken all of it or ended a child, while others wait.
const SHORT_DEADLINE: Duration = Duration::from_secs(1);

/// How many times as long it may take on a host that is so busy that the children hardly run.
const BUSY: u32 = 8;

/// How long a record may wait for those before it: longer than one of another owner may take on a busy host.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// How often the clerk looks at what the children do, while a record takes long.
const LOOK: Duration = Duration::from_millis(250);

/// A file that a record has failed in is left alone for so long.
const PAUSE: Duration = Duration::from_secs(60);

/// How many such files are remembered, and how many owners of such records; all are forgotten when there are more.
const FAILED_MAX: usize = 1024;

/// How long a child may take to die.
const DYING: Duration = Duration::from_millis(100);

/// What a namer gives up here. `None` means that there can be none.
pub(crate) fn fences() -> Option<Fences> {
    let children = Children::start(&SearchPath::default()).ok()?;
    children.namer.set_read_timeout(Some(DEADLINE)).ok()?;
    match receive(&mut &children.namer, ANSWER_BYTES_MAX) {
        Ok(Some(Reply::Ready(fences))) => Some(fences),
        _ => None,
    }
}

/// Children that the clerk waits for no longer than it may.
fn start(search: &SearchPath) -> io::Result<Children> {
    let children = Children::start(search)?;
    for to in [&children.opener, &children.namer] {
        to.set_write_timeout(Some(DEADLINE))?;
    }
    children.namer.set_read_timeout(Some(LOOK))?;
    Ok(children)
}

/// The owner that the children work for.
pub(super) struct Clerk {
    search: SearchPath,
    children: Option<Children>,
    left: Left,
    /// Files that a record failed in.
    files: Lately<FileId>,
    /// Owners of records that were ended.
    owners: Lately<Owner>,
    last_id: u64,
    /// `None` means that nothing is fetched.
    fetching: Option<Fetching>,
    /// Copies of files that were deleted or replaced. `None` means that none are kept.
    kept: Option<Arc<Kept>>,
}

/// What has failed within [`PAUSE`].
struct Lately<Key>(HashMap<Key, Instant>);

impl<Key: Eq + Hash> Lately<Key> {
    fn add(&mut self, key: Key) {
        if self.0.len() >= FAILED_MAX {
            self.0.clear();
        }
        self.0.insert(key, Instant::now());
    }

    fn has(&self, key: &Key) -> bool {
        self.0.get(key).is_some_and(|when| when.elapsed() < PAUSE)
    }
}

impl Clerk {
    /// Starts nothing until the first job comes.
    pub(super) fn new(search: impl Into<SearchPath>) -> Self {
        let (files, owners) = (Lately(HashMap::new()), Lately(HashMap::new()));
        Self {
            search: search.into(),
            children: None,
            left: Left::default(),
            files,
            owners,
            last_id: 0,
            fetching: None,
            kept: None,
        }
    }

    /// `client` fetches what the files of a job lack; `kept` has copies of files that were deleted or replaced.
    pub(super) fn with_sources(search: SearchPath, client: Option<Client>, kept: Option<Arc<Kept>>) -> Self {
        Self { fetching: client.and_then(Fetching::start), kept, ..Self::new(search) }
    }

    /// Does a job that has waited since `since`. `meanwhile` is called now and then, and says whether anybody but its owner waits.
    pub(super) fn name(&mut self, owner: &Owner, mut job: Job, since: Instant, meanwhile: &dyn Fn() -> bool) -> Named {
        let Some(mut fetching) = self.fetching.take() else { return self.name_once(owner, job, since, meanwhile) };
        job.is_anew |= fetching.take_news();
        let again = job.clone();
        let mut named = self.name_once(owner, job, since, meanwhile);
        if fetching.fetch(&again, &named, meanwhile) {
            named = self.name_once(owner, Job { is_anew: true, ..again }, Instant::now(), meanwhile);
        }
        self.fetching = Some(fetching);
        named
    }

    fn name_once(&mut self, owner: &Owner, mut job: Job, since: Instant, meanwhile: &dyn Fn() -> bool) -> Named {
        let skeleton = Skeleton::from(&job);
        if since.elapsed() > WAIT_MAX {
            return Named::failed(&skeleton, Failure::Busy);
        }
        if !self.left.has_room_of(owner) {
            return Named::failed(&skeleton, Failure::Unavailable);
        }
        for file in &mut job.opening.files {
            file.refused = file.refused.or(self.has_failed(file.id).then_some(Failure::FailedBefore));
        }
        if let Some(children) = self.children.take_if(|children| !children.are_alive()) {
            children.leave(&mut self.left, None, None, DYING);
        }
        loop {
            let is_new = self.children.is_none();
            if is_new && self.left.has_room() {
                self.children = start(&self.search).ok();
            }
            let Some(children) = self.children.take() else { return Named::failed(&skeleton, Failure::Unavailable) };
            self.last_id += 1;
            let copies = self.kept.as_ref().map(|kept| kept.of(&job.opening)).unwrap_or_default();
            let is_suspect = self.owners.has(owner);
            let mut asked = Asked { id: self.last_id, job: &job, copies, is_suspect, blamed: None };
            let answer = asked.of(&children, meanwhile);
            let blamed = asked.blamed.and_then(|number| job.opening.files.get(number));
            let is_late = match answer {
                Ok(named) if named.fits(&skeleton) => {
                    self.children = Some(children);
                    self.suspect_those_that_ended_the_opener(owner, &job, &named);
                    return named;
                }
                Ok(_) => false,
                Err(error) => error.kind() == ErrorKind::TimedOut,
            };
            // The path to a file on a disk may lead through another file system, and that one may be the one that doesn't answer.
            let device = blamed.map(|file| file.id).filter(|id| id.major() == 0).map(|id| id.device);
            children.leave(&mut self.left, Some(owner), device, DYING);
            if let Some(file) = blamed {
                self.files.add(file.id);
            } else if !is_new && !is_late {
                // They ended before this record came.
                continue;
            }
            self.owners.add(owner.clone());
            return Named::failed(&skeleton, if is_late { Failure::TimedOut } else { Failure::Died });
        }
    }

    fn suspect_those_that_ended_the_opener(&mut self, owner: &Owner, job: &Job, named: &Named) {
        for (file, named) in job.opening.files.iter().zip(&named.files) {
            if named.failure == Some(Failure::Died) {
                self.files.add(file.id);
                self.owners.add(owner.clone());
            }
        }
    }

    /// Did a record fail in this file lately, or does a child that was left behind still wait for its device?
    fn has_failed(&mut self, id: FileId) -> bool {
        self.files.has(&id) || self.left.waits_for(id.device)
    }
}

/// A job that the children have.
struct Asked<'a> {
    id: u64,
    job: &'a Job,
    /// Copies of its files that were deleted or replaced, by their numbers.
    copies: Vec<((usize, FileOwner), Arc<File>)>,
    /// A record of its owner was ended lately.
    is_suspect: bool,
    /// The number of the file that was looked into last.
    blamed: Option<usize>,
}

impl Asked<'_> {
    /// Gives it to the children, and waits for their answer.
    fn of(&mut self, children: &Children, meanwhile: &dyn Fn() -> bool) -> io::Result<Named> {
        let (now, ran) = (Instant::now(), children.ran().unwrap_or_default());
        let is_suspect = self.is_suspect;
        let mut from = Patient { children, meanwhile, is_suspect, begun: now, looked: now, spent: Duration::ZERO, ran };
        let (numbers, copies): (Vec<_>, Vec<_>) = std::mem::take(&mut self.copies).into_iter().unzip();
        send(&mut &children.opener, &(self.id, &self.job.opening, &numbers), JOB_BYTES_MAX)?;
        if !copies.is_empty() {
            pass(&children.opener, &[0], &copies)?;
        }
        send(&mut &children.namer, &(self.id, self.job), JOB_BYTES_MAX)?;
        loop {
            match receive(&mut from, ANSWER_BYTES_MAX)? {
                Some(Reply::Ready(_)) => {}
                Some(Reply::Begins(number)) => self.blamed = Some(number),
                Some(Reply::Done(named)) => return Ok(*named),
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// Reads what the namer says until the deadline.
struct Patient<'a> {
    children: &'a Children,
    meanwhile: &'a dyn Fn() -> bool,
    is_suspect: bool,
    begun: Instant,
    /// The last look at the children, and how long they had run then.
    looked: Instant,
    ran: Duration,
    /// How much of the deadline is used up.
    spent: Duration,
}

impl Patient<'_> {
    /// Counts the time since the last look. If one of them wants to run, only the time that they have run counts. If not, they wait for a file
    /// system. False: the time is up.
    fn look(&mut self) -> bool {
        let passed = self.looked.elapsed();
        self.looked += passed;
        self.spent += match self.children.ran() {
            Some(ran) if self.children.want_to_run() => {
                let since = ran.saturating_sub(self.ran);
                self.ran = ran;
                since.min(passed)
            }
            // A slow disk may be a busy one: on a host without a warm cache the first children take seconds to read from it.
            _ => passed / 2,
        };
        let has_others = (self.meanwhile)();
        let deadline = if has_others && self.is_suspect { SHORT_DEADLINE } else { DEADLINE };
        self.spent < deadline && self.begun.elapsed() < deadline * BUSY
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.looked.elapsed() >= LOOK && !self.look() {
                return Err(ErrorKind::TimedOut.into());
            }
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

    fn named(clerk: &mut Clerk, since: Instant) -> Named {
        clerk.name(&Owner::User(1), job(), since, &|| false)
    }

    #[test]
    fn a_file_that_failed_is_left_alone() {
        let mut clerk = Clerk::new(Vec::new());
        clerk.files.add(FileId { inode: 1, device: 1 });
        let named = named(&mut clerk, Instant::now());
        assert_eq!(
            named.files.iter().map(|file| file.failure).collect::<Vec<_>>(),
            [Some(Failure::FailedBefore), None]
        );
    }

    #[test]
    fn who_waits_too_long_goes_without_names() {
        let mut clerk = Clerk::new(Vec::new());
        let long_ago = Instant::now().checked_sub(WAIT_MAX * 2).unwrap();
        assert_eq!(named(&mut clerk, long_ago).files[0].failure, Some(Failure::Busy));
    }

    #[test]
    fn what_failed_lately_takes_bounded_room() {
        let mut lately = Lately(HashMap::new());
        for user in 0..10_000 {
            lately.add(Owner::User(user));
        }
        assert!(lately.0.len() <= FAILED_MAX);
        assert!(lately.has(&Owner::User(9999)) && !lately.has(&Owner::User(10_000)));
    }
}
