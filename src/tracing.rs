//! What [`crate::crash::Tracing`] and [`crate::memory::Tracing`] have in common: a thread that everything of libbpf stays on, and a queue.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::probe::{LossOutput, Losses as Counted};

/// What was lost, by reason: docs/output.md and docs/memory.md describe each. Reasons for which nothing was lost are there, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(Vec<(&'static str, u64)>);

impl Losses {
    /// Those that the end line of the command has, and what found no room in the queue.
    pub(crate) fn new<T>(counted: &Counted, queue: &Queue<T>) -> Self {
        let counted = counted.shown(LossOutput::EndLine).map(|(loss, count)| (loss.reason, count));
        Self(counted.chain([("queue_full", queue.full)]).collect())
    }

    /// Each reason with its number, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }

    /// Was nothing lost?
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, count)| *count == 0)
    }
}

/// What the thread is given.
pub(crate) struct Inside<'thread> {
    stop: OwnedFd,
    attached: &'thread mut dyn FnMut(),
}

impl Inside<'_> {
    /// Everything is attached: nothing is missed any more.
    pub(crate) fn attached(&mut self) {
        (self.attached)();
    }

    /// Waits for samples, but no longer than so long if that is given. Returns whether the thread is to end.
    pub(crate) fn wait(&self, samples: BorrowedFd<'_>, longest: Option<Duration>) -> Result<bool> {
        let milliseconds = longest.map(|longest| longest.as_micros().div_ceil(1000));
        let timeout = milliseconds.map_or(PollTimeout::NONE, |wait| u16::try_from(wait).unwrap_or(u16::MAX).into());
        let mut fds = [PollFd::new(samples, PollFlags::POLLIN), PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(fds[1].any() == Some(true)),
            Err(error) => Err(error).context("failed to wait for samples"),
        }
    }
}

/// What waits for the reader, as the thread sees it.
pub(crate) struct Queue<T> {
    into: Sender<T>,
    waiting: Arc<AtomicUsize>,
    most: usize,
    /// How many have found no room.
    full: u64,
}

impl<T> Queue<T> {
    /// Adds one for the reader. If too many wait, it is lost and counted.
    pub(crate) fn push(&mut self, item: T) {
        if self.waiting.load(Ordering::Relaxed) >= self.most {
            self.full += 1;
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The reader has gone: the run ends.
        let _ = self.into.send(item);
    }
}

/// A thread that traces, and what it has found.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    found: Receiver<T>,
    waiting: Arc<AtomicUsize>,
    /// When it is closed, the thread ends.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<Result<Losses>>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts `work` on a thread, and waits until it has attached everything. Of what it finds, `most` wait for the reader.
    ///
    /// # Errors
    /// What `work` says before that.
    pub(crate) fn start(
        name: &str,
        most: usize,
        work: impl FnOnce(&mut Inside<'_>, &mut Queue<T>) -> Result<Losses> + Send + 'static,
    ) -> Result<Self, Error> {
        let ((into, found), waiting) = (channel(), Arc::new(AtomicUsize::new(0)));
        let queue = Queue { into, waiting: waiting.clone(), most, full: 0 };
        let (ready, is_ready) = sync_channel(1);
        let (inside, outside) = nix::unistd::pipe().context("failed to make a pipe")?;
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(inside, &ready, queue, work));
        let thread = thread.context("failed to start a thread")?;
        let mut worker = Self { found, waiting, stop: Some(outside), thread: Some(thread) };
        if is_ready.recv().is_err() {
            // It has ended before.
            worker.end()?;
        }
        Ok(worker)
    }

    /// Waits for the next one. `None` means that the thread has ended.
    pub(crate) fn next(&self) -> Option<T> {
        self.took(self.found.recv().ok())
    }

    /// The same, but no longer than so long.
    pub(crate) fn next_within(&self, longest: Duration) -> Option<T> {
        self.took(self.found.recv_timeout(longest).ok())
    }

    fn took(&self, found: Option<T>) -> Option<T> {
        self.waiting.fetch_sub(usize::from(found.is_some()), Ordering::Relaxed);
        found
    }

    /// Ends the thread, and waits for its end. Returns what is left, and what was lost.
    ///
    /// # Errors
    /// If something went wrong on the way.
    pub(crate) fn stop(mut self) -> Result<(Vec<T>, Losses), Error> {
        self.stop = None;
        // Until the thread has ended: what it finds at its end is more than the queue may hold.
        let left = std::iter::from_fn(|| self.next()).collect();
        Ok((left, self.end()?))
    }
}

impl<T> Worker<T> {
    fn end(&mut self) -> Result<Losses> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("failed to trace: the thread ended in a panic")),
            None => Ok(Losses::default()),
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        // Nobody asks any more how it went.
        let _ = self.end();
    }
}

/// Runs on the thread. `ready` is dropped at its end.
fn run<T>(
    stop: OwnedFd,
    ready: &SyncSender<()>,
    mut queue: Queue<T>,
    work: impl FnOnce(&mut Inside<'_>, &mut Queue<T>) -> Result<Losses>,
) -> Result<Losses> {
    let mut attached = || {
        // It is waited for.
        let _ = ready.send(());
    };
    work(&mut Inside { stop, attached: &mut attached }, &mut queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(queue: &Queue<u32>) -> Result<Losses> {
        Ok(Losses::new(&Counted::default(), queue))
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_found_some_is_handed_over() {
        let worker = Worker::start("test", 2, |inside, queue| {
            (1..=5).for_each(|number| queue.push(number));
            inside.attached();
            losses(queue)
        });
        let (left, losses) = worker.unwrap().stop().unwrap();
        assert_eq!((left, losses.iter().collect::<Vec<_>>()), (vec![1, 2], vec![("queue_full", 3)]));
        assert!(!losses.is_empty());
    }

    #[test]
    fn what_the_reader_has_taken_makes_room() {
        let worker = Worker::start("test", 1, |inside, queue| {
            queue.push(1);
            inside.attached();
            let samples = nix::unistd::pipe()?;
            while !inside.wait(samples.0.as_fd(), None)? {}
            queue.push(2);
            losses(queue)
        });
        let worker = worker.unwrap();
        assert_eq!(worker.next_within(Duration::MAX), Some(1));
        assert_eq!(worker.next_within(Duration::ZERO), None);
        let (left, losses) = worker.stop().unwrap();
        assert_eq!((left, losses.is_empty()), (vec![2], true));
    }

    #[test]
    fn an_error_comes_from_the_start_or_from_the_end() {
        let missing = || Error::NoSuchProcess { pid: 7 };
        let refused = Worker::<u32>::start("test", 1, move |_, _| Err(missing().into()));
        assert!(matches!(refused.unwrap_err(), Error::NoSuchProcess { pid: 7 }));
        let failed = Worker::<u32>::start("test", 1, move |inside, _| {
            inside.attached();
            Err(missing().into())
        });
        let failed = failed.unwrap();
        assert_eq!(failed.next(), None);
        assert!(matches!(failed.stop().unwrap_err(), Error::NoSuchProcess { pid: 7 }));
    }

    #[test]
    fn a_system_error_has_its_cause_and_a_typed_one_is_found_beneath_its_context() {
        let cause = || std::io::Error::from_raw_os_error(libc::EIO);
        let error = Error::from(anyhow::Error::new(cause()).context("failed to read"));
        assert_eq!(error.to_string(), "failed to read");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), cause().to_string());
        let error = Error::from(anyhow::Error::new(Error::Invalid("no".to_owned())).context("above"));
        assert!(matches!(error, Error::Invalid(text) if text == "no"));
    }
}
