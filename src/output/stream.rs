//! A pipe, a socket or a terminal, whose reader may stall: nothing here waits for longer than it may, and a signal that ends the run
//! ends each wait.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use crate::stop::StopSignals;

/// How long all waits together may take before the reader counts as stalled. Half of the time that passes comes back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Less than this is no wait.
const SHORTEST: Duration = Duration::from_millis(20);

/// Until a pipe that has some room is looked at again: the kernel reports any room, and not how much there is.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a pipe is made to hold for lines that are long beside what it holds: as much as faultline's longest line has, bytes. pipe(7): without
/// privileges as much as `/proc/sys/fs/pipe-max-size` says, 1 MiB unless it was changed.
const WIDE_PIPE: libc::c_int = 1 << 20;

/// The most that is written at once to what can't be asked not to wait: a terminal that is ready takes so much.
const PIECE: usize = 256;

/// Whole lines that are written together.
struct Chunk {
    bytes: Vec<u8>,
    lines: u64,
}

/// How to write without waiting.
enum NonBlocking {
    /// An open file description of our own: others that have the same pipe open are not affected.
    Own(File),
    /// For a socket each call can say so.
    Socket(File),
    /// Neither, as a terminal of another user: it is asked before each piece. Another writer may take the room in between.
    Asked(File),
}

/// What must happen before more can be written.
#[derive(Clone, Copy)]
pub(crate) enum WaitFor<'stream> {
    /// Nothing: all is written.
    Nothing,
    /// This must be writable.
    Room(BorrowedFd<'stream>),
    /// Some time must pass.
    Time(Duration),
}

/// The writing end.
pub(super) struct Stream {
    way: NonBlocking,
    is_pipe: bool,
    stop: StopSignals,
    waiting: VecDeque<Chunk>,
    waiting_bytes: usize,
    /// How much of the first chunk is written.
    begun: usize,
    patience: Patience,
}

/// The time that may be spent waiting.
struct Patience {
    left: Duration,
    since: Instant,
    /// Nothing comes back.
    is_last: bool,
}

impl Patience {
    fn left(&mut self) -> Duration {
        let now = Instant::now();
        if !self.is_last {
            self.left = PATIENCE.min(self.left + now.duration_since(self.since) / 2);
        }
        self.since = now;
        if self.left < SHORTEST { Duration::ZERO } else { self.left }
    }

    fn spend(&mut self, began: Instant) {
        self.left = self.left.saturating_sub(began.elapsed());
        self.since = Instant::now();
    }
}

fn stalled() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "its reader has stalled")
}

impl NonBlocking {
    fn of(file: File) -> (Self, bool) {
        let kind = file.metadata().map(|metadata| metadata.file_type());
        if kind.as_ref().is_ok_and(FileTypeExt::is_socket) {
            return (Self::Socket(file), false);
        }
        let is_pipe = kind.is_ok_and(|kind| kind.is_fifo());
        let is_own = fcntl(&file, FcntlArg::F_GETFL).is_ok_and(|flags| flags & OFlag::O_NONBLOCK.bits() != 0);
        if is_own {
            return (Self::Own(file), is_pipe);
        }
        let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(own) => (Self::Own(own), is_pipe),
            Err(_) => (Self::Asked(file), is_pipe),
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::Own(file) | Self::Socket(file) | Self::Asked(file) => file,
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Own(file) => (&*file).write(bytes),
            Self::Socket(file) => {
                send(file.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).map_err(io::Error::from)
            }
            Self::Asked(file) => {
                poll_for(file.as_fd(), PollFlags::POLLOUT, Duration::ZERO)?;
                (&*file).write(&bytes[..bytes.len().min(PIECE)])
            }
        }
    }
}

/// Waits until `fd` is ready.
fn poll_for(fd: BorrowedFd<'_>, events: PollFlags, most: Duration) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, events)], timeout(most)) {
        Ok(0) => Err(ErrorKind::WouldBlock.into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn timeout(most: Duration) -> PollTimeout {
    PollTimeout::try_from(most.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
}

/// Has the pipe hold lines that are so long: a reader that never comes back, or comes late when the run ends, finds them whole. Where the kernel
/// refuses, they are written in parts.
fn widen(pipe: BorrowedFd<'_>, length: usize) {
    let is_narrow = |&size: &libc::c_int| size < WIDE_PIPE && length > size as usize / 2;
    if fcntl(pipe, FcntlArg::F_GETPIPE_SZ).ok().filter(is_narrow).is_some() {
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(WIDE_PIPE));
    }
}

/// Does a pipe certainly take so much at once? The kernel keeps it in pages. A write goes on in the last one only if all that is more
/// than whole pages finds room there, so that any two neighbours hold a page of bytes; the first may be partly read.
fn has_room(pipe: RawFd, length: usize) -> bool {
    let page = crate::page::size() as usize;
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int to where its argument points, and `bytes` is one that lives until the call returns.
    let known = unsafe { libc::ioctl(pipe, libc::FIONREAD, &raw mut bytes) } == 0;
    // SAFETY: F_GETPIPE_SZ takes no argument, and touches no memory of ours.
    let size = unsafe { libc::fcntl(pipe, libc::F_GETPIPE_SZ) };
    let (Ok(bytes), Ok(size), true) = (usize::try_from(bytes), usize::try_from(size), known) else { return true };
    let used = 2 * bytes.div_ceil(page) + 1;
    bytes == 0 || used + length.div_ceil(page) < size / page
}

impl Stream {
    /// A stream to what `file` is open on; that stays open.
    pub(super) fn new(file: File) -> Self {
        let (way, is_pipe) = NonBlocking::of(file);
        Self {
            way,
            is_pipe,
            stop: StopSignals::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            begun: 0,
            patience: Patience { left: PATIENCE, since: Instant::now(), is_last: false },
        }
    }

    /// From now on all waits together take no more than this.
    pub(super) fn hurry(&mut self, most: Duration) {
        self.patience.left = self.patience.left.min(most);
        self.patience.is_last = true;
    }

    /// How many bytes wait for the reader.
    pub(super) fn waiting(&self) -> usize {
        self.waiting_bytes
    }

    /// Takes a record behind those that wait. Small ones are written together: a pipe takes so much as a whole or not at all.
    pub(super) fn add(&mut self, record: &[u8]) {
        self.waiting_bytes += record.len();
        let may_grow = self.begun == 0 || self.waiting.len() > 1;
        match self.waiting.back_mut() {
            Some(last) if may_grow && last.bytes.len() + record.len() <= libc::PIPE_BUF => {
                last.bytes.extend_from_slice(record);
                last.lines += 1;
            }
            _ => self.waiting.push_back(Chunk { bytes: record.to_vec(), lines: 1 }),
        }
        if self.is_pipe && record.len() > libc::PIPE_BUF {
            widen(self.way.file().as_fd(), record.len());
        }
    }

    /// Writes what the reader takes now.
    ///
    /// # Errors
    /// The errors of write(2), as when the reader has gone. A lack of room is no error.
    pub(super) fn push(&mut self) -> io::Result<()> {
        while let Some(first) = self.waiting.front() {
            if !self.may_begin(first.bytes.len()) {
                return Ok(());
            }
            match self.way.write(&first.bytes[self.begun..]) {
                Ok(count) => {
                    self.begun += count;
                    self.waiting_bytes -= count;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.begun == first.bytes.len() {
                self.waiting.pop_front();
                self.begun = 0;
            }
        }
        Ok(())
    }

    /// A line that a pipe takes in parts is begun only if there is room for all of it, so that a reader that never comes back
    /// finds whole lines. One that is larger than the pipe can be made is begun when the pipe is empty.
    fn may_begin(&self, length: usize) -> bool {
        self.begun != 0 || !self.is_pipe || length <= libc::PIPE_BUF || has_room(self.way.file().as_raw_fd(), length)
    }

    /// What must happen before [`Stream::push`] can do more.
    pub(super) fn waits_for(&self) -> WaitFor<'_> {
        let Some(first) = self.waiting.front() else { return WaitFor::Nothing };
        let room = self.way.file().as_fd();
        let is_ready = || poll_for(room, PollFlags::POLLOUT, Duration::ZERO).is_ok();
        if self.may_begin(first.bytes.len()) || !is_ready() { WaitFor::Room(room) } else { WaitFor::Time(LOOK_AGAIN) }
    }

    /// Waits for the reader, at most so long. False: a signal wants to end the run.
    fn wait(&self, most: Duration) -> bool {
        let (what, until) = match self.waits_for() {
            WaitFor::Nothing => return true,
            WaitFor::Room(room) => (Some((room, PollFlags::POLLOUT)), most),
            WaitFor::Time(time) => (None, most.min(time)),
        };
        self.stop.wait_for(what, until, false);
        !self.stop.are_pending()
    }

    /// Writes, and waits where there is no room, until `is_enough`, but no longer than there is patience for.
    ///
    /// # Errors
    /// As [`Stream::push`]; `TimedOut` if the reader has stalled.
    pub(super) fn push_until(&mut self, is_enough: impl Fn(&Self) -> bool) -> io::Result<()> {
        self.push()?;
        if is_enough(self) {
            return Ok(());
        }
        let began = Instant::now();
        let until = began + self.patience.left();
        let result = loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait(left) {
                break Err(stalled());
            }
            self.push()?;
            if is_enough(self) {
                break Ok(());
            }
        };
        self.patience.spend(began);
        result
    }

    /// Writes a record as a whole, now or with what comes later, or nothing of it.
    pub(super) fn write_whole(&mut self, record: &[u8]) -> io::Result<()> {
        self.push_until(|stream| stream.waiting.is_empty())?;
        self.add(record);
        let result = self.push_until(|stream| stream.begun != 0 || stream.waiting.is_empty());
        if result.is_err() {
            self.drop_waiting();
        }
        result
    }

    /// Waits for the reader at the end of the run: until it has taken nothing for `idle`, or a signal comes. From then on, and if one
    /// came before, `rest` is left.
    pub(super) fn settle(&mut self, idle: Option<Duration>, rest: Duration) -> io::Result<()> {
        let mut deadline = Instant::now() + idle.unwrap_or(rest);
        let mut is_patient = idle;
        loop {
            let before = self.waiting_bytes;
            self.push()?;
            let now = Instant::now();
            if let Some(idle) = is_patient.filter(|_| self.waiting_bytes < before) {
                deadline = now + idle;
            }
            if self.waiting.is_empty() || now >= deadline {
                return Ok(());
            }
            if !self.wait(deadline - now) {
                if is_patient.take().is_some() {
                    deadline = deadline.min(now + rest);
                }
                // The signal stays, and would end each wait at once.
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }

    /// Gives up what waits, but for a line that is begun. Returns how many records that is.
    pub(super) fn drop_waiting(&mut self) -> u64 {
        let kept = usize::from(self.begun != 0);
        let dropped = self.waiting.drain(kept.min(self.waiting.len())..).map(|chunk| chunk.lines).sum();
        self.waiting_bytes = self.waiting.front().map_or(0, |first| first.bytes.len() - self.begun);
        dropped
    }

    /// Gives up everything that waits; returns how many records that is.
    pub(super) fn give_up(&mut self) -> u64 {
        let cut = self.waiting.front().filter(|_| self.begun != 0).map_or(0, |first| first.lines);
        let dropped = self.drop_waiting();
        self.waiting.clear();
        (self.waiting_bytes, self.begun) = (0, 0);
        dropped + cut
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (io::PipeReader, Stream) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Stream::new(File::from(OwnedFd::from(writer))))
    }

    fn rest(mut reader: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            text
        })
    }

    #[test]
    fn a_reader_that_stalls_is_not_waited_for() {
        for length in [100, 30_000, 200_000, 1 << 20] {
            let (reader, mut stream) = pipe();
            let line = [vec![b'x'; length], b"\n".to_vec()].concat();
            let began = Instant::now();
            let mut written = 0;
            let stalled = loop {
                match stream.write_whole(&line) {
                    Ok(()) => written += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(stalled.kind(), ErrorKind::TimedOut);
            assert!(stream.write_whole(&line).is_err());
            assert!(began.elapsed() < PATIENCE * 4, "the second time there is no waiting");
            // When the reader reads again, each line is whole.
            let rest = rest(reader);
            while stream.write_whole(b"last\n").is_err() {}
            drop(stream);
            let text = String::from_utf8(rest.join().unwrap()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), written + 1);
            assert!(lines[..written].iter().all(|line| line.len() == length) && lines[written] == "last");
        }
    }

    /// A reader that never comes back: what it finds are whole lines, and the others are known.
    #[test]
    fn what_is_given_up_is_whole_lines() {
        for length in [100, 3000, 5000, 9000, 30_000, 150_000] {
            let (mut reader, mut stream) = pipe();
            let line = [vec![b'x'; length], b"\n".to_vec()].concat();
            let mut added = 0;
            while added * length < 1_500_000 {
                stream.add(&line);
                added += 1;
                stream.push().unwrap();
            }
            assert!(!matches!(stream.waits_for(), WaitFor::Nothing));
            stream.settle(None, Duration::from_millis(10)).unwrap();
            // Something is read, and then no more.
            reader.read_exact(&mut vec![0; length]).unwrap();
            stream.push().unwrap();
            let lost = stream.give_up();
            drop(stream);
            let written = rest(reader).join().unwrap().len() + length;
            assert_eq!((written % line.len(), written / line.len() + lost as usize), (0, added), "{length}");
        }
    }

    #[test]
    fn a_socket_is_not_waited_for_either() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut stream = Stream::new(File::from(OwnedFd::from(writer)));
        let began = Instant::now();
        for _ in 0..10_000 {
            stream.add(&[b'x'; 1000]);
        }
        stream.push().unwrap();
        assert!(stream.waiting() > 0);
        stream.settle(Some(Duration::from_millis(20)), Duration::ZERO).unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
        let rest = rest(reader);
        stream.settle(Some(Duration::from_secs(60)), Duration::ZERO).unwrap();
        assert_eq!(stream.waiting(), 0);
        drop(stream);
        assert_eq!(rest.join().unwrap().len(), 10_000_000);
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        let (reader, mut stream) = pipe();
        drop(reader);
        assert_eq!(stream.write_whole(b"x\n").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
