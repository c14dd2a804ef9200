//! The child: how it is started, what it does, and how it is left behind.

use std::cell::Cell;
use std::io::{self, BufWriter, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::range;
use super::{Answer, ORDER_BYTES_MAX, Order, PageRead, Question, REGIONS_BYTES_MAX};
use crate::memory::record::Source;
use crate::memory::target::{self, Memory, regions};
use crate::page;
use crate::{naming, nowhere};

/// The first argument of the child; nobody types it.
const READER: &str = "--memory-reader";

/// To be called in `main`, after [`naming::serve`]. `Some` means that this process is the child, and is to exit with this.
pub(crate) fn serve() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != READER {
        return None;
    }
    naming::confine_as_opener(c"fl-reader");
    let served = rustix::stdio::stdin().try_clone_to_owned().and_then(|socket| answer(&UnixStream::from(socket)));
    Some(if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Answers one question after another.
fn answer(socket: &UnixStream) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, socket);
    naming::send(&mut out, &Answer::Ready(rustix::thread::gettid().as_raw_pid()), ORDER_BYTES_MAX)?;
    loop {
        out.flush()?;
        let Some((Order { pid, question }, memory)) = receive(socket)? else { return Ok(()) };
        let mut pass = |page: PageRead| naming::send(&mut out, &Answer::Page(page), ORDER_BYTES_MAX);
        let last = match question {
            Question::Regions => {
                Answer::Regions(regions(pid).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)))
            }
            Question::Pages { start, count } => {
                for address in (0..count).map(|number| start + number * page::size()) {
                    let mut bytes = target::page();
                    if memory.as_ref().and_then(|memory| memory.page(address, &mut bytes)).is_some() {
                        pass(PageRead { address, source: Source::Process, bytes })?;
                    }
                }
                Answer::Done(None)
            }
            Question::Range(wanted) => Answer::Done(Some(range::read(pid, memory.as_ref(), &wanted, &mut pass)?)),
        };
        match naming::send(&mut out, &last, REGIONS_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                naming::send(&mut out, &Answer::Regions(Err(libc::E2BIG)), ORDER_BYTES_MAX)?;
            }
            sent => sent?,
        }
    }
}

/// Sends a question, with the memory that it is about.
pub(super) fn order(to: &UnixStream, order: &Order, memory: Option<&Memory>) -> io::Result<()> {
    let fds = memory.map(Memory::descriptors);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(fds) = &fds {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(to.as_fd(), &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    naming::send(&mut &*to, order, ORDER_BYTES_MAX)
}

/// The next question; `None` means that there will be no more.
fn receive(from: &UnixStream) -> io::Result<Option<(Order, Option<Memory>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [IoSliceMut::new(&mut byte)];
    if recvmsg(from.as_fd(), &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes == 0 {
        return Ok(None);
    }
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    let Some(order) = naming::receive::<Order>(&mut &*from, ORDER_BYTES_MAX)? else { return Ok(None) };
    let mut fds = fds.into_iter();
    let memory = fds.next().zip(fds.next()).map(|(mem, pagemap)| Memory::from_descriptors(order.pid, mem, pagemap));
    Ok(Some((order, memory)))
}

/// One that answers.
pub(super) struct Running {
    pub(super) socket: UnixStream,
    /// Its main thread; `None` means that it has not begun yet.
    pub(super) tid: Cell<Option<i32>>,
    handle: Handle,
}

enum Handle {
    Process(Child),
    /// In a program that isn't faultline.
    Thread(JoinHandle<()>),
}

impl Running {
    /// Does it run, or want to? Else it waits.
    pub(super) fn wants_to_run(&self) -> bool {
        let process = self.tid.get().and_then(|tid| procfs::process::Process::new(tid).ok());
        process.and_then(|process| process.stat().ok()).is_some_and(|stat| stat.state == 'R')
    }

    /// Ends it, as soon as the file system or process that blocks it allows.
    pub(super) fn end(mut self) -> Ending {
        if let Handle::Process(child) = &mut self.handle {
            // It may have ended by itself.
            let _ = child.kill();
        }
        // A thread ends when it finds its socket closed.
        Ending(self.handle)
    }
}

/// A child that was asked to end.
pub(super) struct Ending(Handle);

impl Ending {
    pub(super) fn has_ended(&mut self) -> bool {
        match &mut self.0 {
            Handle::Process(child) => !matches!(child.try_wait(), Ok(None)),
            Handle::Thread(thread) => thread.is_finished(),
        }
    }
}

/// Starts children, on a thread of its own: what the thread that watches starts is the command, and a child ends with the thread that has
/// started it.
pub(super) struct Starter(Option<SyncSender<SyncSender<io::Result<Running>>>>);

impl Starter {
    pub(super) fn new() -> Self {
        let (orders, ordered) = mpsc::sync_channel::<SyncSender<io::Result<Running>>>(1);
        let thread = thread::Builder::new().name("starter".to_owned()).spawn(move || {
            while let Ok(reply) = ordered.recv() {
                let _ = reply.send(start());
            }
        });
        Self(thread.is_ok().then_some(orders))
    }

    /// # Errors
    /// If there can't be more processes.
    pub(super) fn start(&self) -> io::Result<Running> {
        let (reply, started) = mpsc::sync_channel(1);
        let gone = || io::Error::other("there can't be more threads");
        self.0.as_ref().and_then(|orders| orders.send(reply).ok()).ok_or_else(gone)?;
        started.recv().map_err(|_| gone())?
    }
}

fn start() -> io::Result<Running> {
    let (socket, its) = UnixStream::pair()?;
    let handle = if naming::may_execute() {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("faultline").arg(READER).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::from(OwnedFd::from(its))).stdout(nowhere::output()?).stderr(nowhere::output()?);
        Handle::Process(command.spawn()?)
    } else {
        // If nobody reads its answers any more, it ends.
        Handle::Thread(thread::Builder::new().name("reader".to_owned()).spawn(move || drop(answer(&its)))?)
    };
    Ok(Running { socket, tid: Cell::new(None), handle })
}
