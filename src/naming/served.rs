//! The two children's own loops.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::confine::{self, Fences};
use super::frame::{ANSWER_BYTES_MAX, JOB_BYTES_MAX, decode, receive, send};
use super::job::{Described, Job, Named};
use super::opener::{FileOwner, Opener};
use super::passing::{pass, take};
use super::search::SearchPath;
use super::worker::Worker;
use crate::evidence::Failure;
use crate::symbol::{Open, Opening};

/// A request passes none.
const NO_FILES: [File; 0] = [];

/// A request for files is short.
const REQUEST_BYTES_MAX: usize = 4096;

/// What the namer says of a job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It has given up what it can, and awaits its first job.
    Ready(Fences),
    /// It looks into the file of this number.
    Begins(usize),
    /// It is done.
    Done(Box<Named>),
}

/// The files of a job by its number, for the opener, and the numbers and owners of those of which copies come with a byte behind it.
type Listed = (u64, Opening, Vec<(usize, FileOwner)>);

/// A job and its number, for the namer.
type Order = (u64, Job);

/// What the namer asks the opener for.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    /// The number of the job.
    id: u64,
    number: usize,
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
enum What {
    Mapped,
    Debug { build_id: Vec<u8>, link: Option<Vec<u8>> },
    ByBuildId(Vec<u8>),
    PerfMap,
    Split(Option<Vec<u8>>),
}

/// The opener: `orders` says which files, `requests` when.
pub(super) fn open_files(mut orders: UnixStream, requests: &OwnedFd, search: SearchPath) -> io::Result<()> {
    let mut opener = Opener::new(search);
    let mut current = None;
    let mut bytes = [0; REQUEST_BYTES_MAX];
    loop {
        let (length, _) = take(requests, &mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        let request: Request = decode(bytes.get(..length).unwrap_or_default())?;
        // The list of a job is sent before the job.
        while current.is_none_or(|current| current < request.id) {
            let Some((id, opening, kept)) = receive::<Listed>(&mut orders, JOB_BYTES_MAX)? else { return Ok(()) };
            current = Some(id);
            opener.begin(opening);
            if !kept.is_empty() {
                let (_, copies) = take(&orders, &mut [0])?;
                opener.keep(kept.into_iter().zip(copies));
            }
        }
        let (files, failure) =
            if current == Some(request.id) { open_for(&mut opener, &request) } else { (Vec::new(), None) };
        let answer = postcard::to_stdvec(&failure).map_err(io::Error::other)?;
        pass(requests, &answer, &files)?;
    }
}

fn open_for(opener: &mut Opener, request: &Request) -> (Vec<File>, Option<Failure>) {
    match &request.what {
        What::Mapped => match opener.mapped(request.number) {
            Ok(file) => (file.into_iter().collect(), None),
            Err(failure) => (Vec::new(), Some(failure)),
        },
        What::Debug { build_id, link } => (opener.debug(request.number, build_id, link.as_deref()), None),
        What::ByBuildId(build_id) => (opener.by_build_id(request.number, build_id), None),
        What::PerfMap => (opener.perf_map().into_iter().collect(), None),
        What::Split(path) => (opener.split(request.number, path.as_deref()).into_iter().collect(), None),
    }
}

/// Whether a message of the namer's is a request for files, and how many the opener then passes.
#[cfg(any(test, fuzzing))]
pub(crate) fn passed(opener: &mut Opener, message: &[u8]) -> Option<usize> {
    let message = message.get(..message.len().min(REQUEST_BYTES_MAX))?;
    Some(open_for(opener, &decode(message).ok()?).0.len())
}

/// The answer to a job, if this message of the namer's is one.
#[cfg(any(test, fuzzing))]
pub(crate) fn answered(message: &[u8]) -> Option<Named> {
    match decode(message).ok()? {
        Reply::Done(named) => Some(*named),
        Reply::Ready(_) | Reply::Begins(_) => None,
    }
}

/// Asks the opener for the files of one job.
struct Remote<'a> {
    requests: &'a OwnedFd,
    id: u64,
}

impl Remote<'_> {
    fn ask(&self, number: usize, what: What) -> io::Result<(Vec<File>, Option<Failure>)> {
        let request = postcard::to_stdvec(&Request { id: self.id, number, what }).map_err(io::Error::other)?;
        pass(self.requests, &request, &NO_FILES)?;
        let mut bytes = [0; 16];
        let (length, files) = take(self.requests, &mut bytes)?;
        Ok((files, decode(bytes.get(..length).unwrap_or_default())?))
    }
}

impl Open for Remote<'_> {
    fn mapped(&mut self, number: usize) -> Result<Option<File>, Failure> {
        match self.ask(number, What::Mapped) {
            Ok((_, Some(failure))) => Err(failure),
            Ok((files, None)) => Ok(files.into_iter().next()),
            Err(_) => Err(Failure::Died),
        }
    }

    fn debug(&mut self, number: usize, build_id: &[u8], link: Option<&[u8]>) -> Vec<File> {
        let what = What::Debug { build_id: build_id.to_vec(), link: link.map(<[u8]>::to_vec) };
        self.ask(number, what).map(|(files, _)| files).unwrap_or_default()
    }

    fn perf_map(&mut self) -> Option<File> {
        self.ask(0, What::PerfMap).ok()?.0.into_iter().next()
    }

    fn split(&mut self, number: usize, path: Option<&[u8]>) -> Option<File> {
        self.ask(number, What::Split(path.map(<[u8]>::to_vec))).ok()?.0.into_iter().next()
    }

    fn by_build_id(&mut self, number: usize, build_id: &[u8]) -> Vec<File> {
        self.ask(number, What::ByBuildId(build_id.to_vec())).map(|(files, _)| files).unwrap_or_default()
    }
}

/// The namer: does the jobs that come through `orders`.
pub(super) fn do_jobs(orders: UnixStream, requests: &OwnedFd, confine: impl FnOnce() -> Fences) -> io::Result<()> {
    let mut orders = Rc::new(orders);
    let said = Rc::new(AtomicUsize::new(usize::MAX));
    let begins = {
        let (orders, said) = (orders.clone(), said.clone());
        move |number: usize| {
            if said.swap(number, Ordering::Relaxed) != number {
                // If nobody reads it, the next receive ends us.
                let _ = send(&mut &*orders, &Reply::Begins(number), ANSWER_BYTES_MAX);
            }
        }
    };
    let mut worker = Worker::new(Rc::new(begins));
    send(&mut &*orders, &Reply::Ready(confine()), ANSWER_BYTES_MAX)?;
    while let Some((id, job)) = receive::<Order>(&mut &*orders, JOB_BYTES_MAX)? {
        said.store(usize::MAX, Ordering::Relaxed);
        let named = worker.name(&job, &mut Remote { requests, id });
        answer(&mut orders, named)?;
    }
    Ok(())
}

/// The answer without names, if there are too many.
fn answer(orders: &mut Rc<UnixStream>, named: Named) -> io::Result<()> {
    let done = Reply::Done(Box::new(named));
    match send(&mut &**orders, &done, ANSWER_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let Reply::Done(mut named) = done else { return Ok(()) };
            let Named { described: Described { functions, more, .. }, ending_functions, .. } = &mut *named;
            functions
                .iter_mut()
                .chain(more)
                .chain(ending_functions)
                .for_each(|functions| *functions = Err(Failure::TooLarge));
            named.instead = None;
            for file in &mut named.files {
                file.failure = file.failure.or(Some(Failure::TooLarge));
            }
            send(&mut &**orders, &Reply::Done(named), ANSWER_BYTES_MAX)
        }
        sent => sent,
    }
}

/// The child's two sockets: its standard input and output.
fn sockets() -> io::Result<(UnixStream, OwnedFd)> {
    let orders = rustix::stdio::stdin().try_clone_to_owned()?;
    let requests = rustix::stdio::stdout().try_clone_to_owned()?;
    Ok((UnixStream::from(orders), requests))
}

pub(super) fn opener(search: SearchPath) -> ExitCode {
    super::confine_as_opener(c"fl-opener");
    let served = sockets().and_then(|(orders, requests)| open_files(orders, &requests, search));
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn confine_namer() -> Fences {
    let (fences, folder) = confine::namer();
    crate::symbol::open_descriptors_in(folder);
    fences
}

pub(super) fn namer() -> ExitCode {
    super::settle::settle(c"fl-namer");
    let served = sockets().and_then(|(orders, requests)| do_jobs(orders, &requests, confine_namer));
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Messages as a namer sends them, for the fuzzers to begin with.
#[cfg(test)]
pub(crate) mod messages {
    use super::*;

    pub(crate) fn answer(named: Named) -> Vec<u8> {
        postcard::to_stdvec(&Reply::Done(Box::new(named))).unwrap()
    }

    pub(crate) fn others() -> [Vec<u8>; 2] {
        [Reply::Ready(Fences::default()), Reply::Begins(3)].map(|reply| postcard::to_stdvec(&reply).unwrap())
    }

    /// For the file of this number. `debug`: a build id and what is in `.gnu_debuglink`.
    pub(crate) fn request(number: usize, debug: Option<(&[u8], Option<&[u8]>)>) -> Vec<u8> {
        let what = debug.map_or(What::Mapped, |(build_id, link)| What::Debug {
            build_id: build_id.to_vec(),
            link: link.map(<[u8]>::to_vec),
        });
        postcard::to_stdvec(&Request { id: 1, number, what }).unwrap()
    }
}
