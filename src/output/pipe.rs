//! A pipe that nobody waits for too long: an agent goes on counting although nobody reads its output.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a reader may take before it counts as stalled.
const PATIENCE: Duration = Duration::from_secs(1);

/// The writing end of a pipe, as an open file description of our own: other processes that have the same pipe open are not
/// affected.
pub struct Pipe {
    file: File,
    /// The end of a line whose beginning is in the pipe.
    rest: Vec<u8>,
    /// The reader took nothing the last time: then we don't wait.
    is_stalled: bool,
}

impl Pipe {
    /// The pipe behind `fd`; `None` means that it is no pipe.
    pub fn open(fd: &impl AsFd) -> Option<Self> {
        let path = Path::new("/proc/self/fd").join(fd.as_fd().as_raw_fd().to_string());
        let is_pipe = std::fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        let open = || OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path).ok();
        let file = is_pipe.then(open)??;
        Some(Self { file, rest: Vec::new(), is_stalled: false })
    }

    fn await_room(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if self.is_stalled || left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "its reader has stalled"));
        }
        let timeout = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::ZERO);
        poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], timeout).map_err(io::Error::from)?;
        Ok(())
    }

    /// Writes as much of `bytes` as the reader takes in time; returns how much.
    fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self.await_room(deadline) {
                    Ok(()) => {}
                    Err(_) if written > 0 => break,
                    Err(stalled) => {
                        self.is_stalled = true;
                        return Err(stalled);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        self.is_stalled = false;
        Ok(written)
    }

    /// Writes a line as a whole, now or with the next lines, or nothing of it.
    ///
    /// # Errors
    /// `TimedOut` if the reader takes nothing, and the errors of write(2).
    pub fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            let written = match self.push(&rest) {
                Ok(written) => written,
                Err(error) => {
                    self.rest = rest;
                    return Err(error);
                }
            };
            self.rest = rest[written..].to_vec();
            if !self.rest.is_empty() {
                return Err(io::Error::new(ErrorKind::TimedOut, "its reader has stalled"));
            }
        }
        let written = self.push(line)?;
        self.rest = line[written..].to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_file_is_no_pipe() {
        assert!(Pipe::open(&File::open("/proc/self/exe").unwrap()).is_none());
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut pipe = Pipe::open(&writer).unwrap();
        let line = [vec![b'x'; 30_000], b"\n".to_vec()].concat();
        let began = Instant::now();
        let mut written = 0;
        let stalled = loop {
            match pipe.write_line(&line) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(stalled.kind(), ErrorKind::TimedOut);
        assert!(pipe.write_line(&line).is_err());
        assert!(began.elapsed() < PATIENCE * 4, "the second time there is no waiting");
        // When the reader reads again, each line is whole.
        let rest = std::thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            text
        });
        while pipe.write_line(b"last\n").is_err() {}
        drop((pipe, writer));
        let text = String::from_utf8(rest.join().unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), written + 1);
        assert!(lines[..written].iter().all(|line| line.len() == 30_000) && lines[written] == "last");
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        let mut pipe = Pipe::open(&writer).unwrap();
        drop(reader);
        assert_eq!(pipe.write_line(b"x\n").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
