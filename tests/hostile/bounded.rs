//! Runs that must end in time.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::FAULTLINE;

/// How long it may take to say something.
const HEARD: Duration = Duration::from_secs(20);

/// So much of the time doesn't count in which more tasks want a processor than there are: the kernel lets go of a tracepoint only after all
/// processors have taken their turn, which takes it seconds then. What waits for a reader waits for ever.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// The time since something was asked for.
pub(crate) struct Waited {
    began: Instant,
    looked: Instant,
    busy: Duration,
}

impl Waited {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { began: now, looked: now, busy: Duration::ZERO }
    }

    /// Sleeps for a moment. Is it more than `most` by now, without the time in which the machine was busy?
    pub(crate) fn is_over(&mut self, most: Duration) -> bool {
        std::thread::sleep(Duration::from_millis(2));
        let now = Instant::now();
        if is_busy() {
            self.busy += now - self.looked;
        }
        self.looked = now;
        now - self.began > most + self.busy.min(BUSY_MAX)
    }
}

/// Do more tasks want a processor than there are? The one that asks is one of them.
fn is_busy() -> bool {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    let running: usize = text.split(' ').nth(3).unwrap().split('/').next().unwrap().parse().unwrap();
    running > std::thread::available_parallelism().unwrap().get()
}

/// faultline while it is attacked. It is ended with the test.
pub(crate) struct Victim {
    pub child: Child,
    stderr: BufReader<ChildStderr>,
    pub said: String,
    has_ended: bool,
}

/// How a run went.
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub said: String,
    /// The most memory that it had in RAM, KiB.
    pub peak_kib: i64,
}

impl Victim {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, said: String::new(), has_ended: false }
    }

    /// The same, and waits until it watches.
    pub(crate) fn watching(command: &mut Command) -> Self {
        let mut victim = Self::spawn(command);
        victim.hear("faultline: watching ");
        victim
    }

    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::watching(Command::new(FAULTLINE).args(arguments).stdout(Stdio::piped()))
    }

    /// Reads what it says until that contains `words`.
    pub(crate) fn hear(&mut self, words: &str) {
        assert!(self.hears(words), "it ended without `{words}`: {}", self.said);
    }

    /// The same; false if it ends without saying so.
    pub(crate) fn hears(&mut self, words: &str) -> bool {
        let deadline = Instant::now() + HEARD;
        while !self.said.contains(words) {
            if self.stderr.buffer().is_empty() {
                let left = deadline.saturating_duration_since(Instant::now()).as_millis();
                let mut fds = [PollFd::new(self.stderr.get_ref().as_fd(), PollFlags::POLLIN)];
                let ready = poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
                assert!(ready > 0, "after {HEARD:?} it has not said `{words}`: {}", self.said);
            }
            if self.stderr.read_line(&mut self.said).unwrap() == 0 {
                return false;
            }
        }
        true
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Sends a signal, and waits for the end, at most `most`.
    pub(crate) fn end(self, signal: Signal, most: Duration) -> Ended {
        self.signal(signal);
        self.ended(most)
    }

    /// Waits for the end, at most `most` and the time in which the machine is busy.
    pub(crate) fn ended(mut self, most: Duration) -> Ended {
        let mut waited = Waited::new();
        let (mut status, pid) = (0, self.pid().as_raw());
        // SAFETY: all zeros is a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: wait4 writes to these two, which live until it returns. The child is ours, and nobody else waits for it.
        while unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } == 0 {
            assert!(!waited.is_over(most), "it has not ended after {:?}: {}", waited.began.elapsed(), self.said);
        }
        self.has_ended = true;
        self.stderr.read_to_string(&mut self.said).unwrap();
        let status = std::os::unix::process::ExitStatusExt::from_raw(status);
        Ended { status, said: std::mem::take(&mut self.said), peak_kib: usage.ru_maxrss }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs faultline with these arguments to its end, at most `most`.
pub(crate) fn run(arguments: &[&str], most: Duration) -> Ended {
    Victim::spawn(Command::new(FAULTLINE).args(arguments).stdout(Stdio::null())).ended(most)
}

/// As another user: these lines of a shell.
pub(crate) fn as_nobody(lines: &str) {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-ec", lines])
        .output()
        .unwrap();
    assert!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
}
