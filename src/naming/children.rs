//! The opener and the namer: how they are started, and left behind.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::confine::Fences;
use super::owner::Owner;
use super::{NAMER, SearchPath, opener_arguments, served};
use crate::nowhere;

/// How many children that don't end are left behind: they wait for a file system that doesn't answer.
const LEFT_MAX: usize = 8;

/// How many of them may wait for the files of one owner. Then this owner has no names until one of them ends; others still have.
const LEFT_BY_ONE_MAX: usize = 4;

/// The stack of a namer that is a thread, as large as that of a process: names may be nested deeply.
const NAMER_STACK_BYTES: usize = 8 << 20;

/// This program knows what to do as a child.
static MAY_EXECUTE: AtomicBool = AtomicBool::new(false);

pub(super) fn may_execute_anew() {
    MAY_EXECUTE.store(true, Ordering::Relaxed);
}

pub(super) fn may_execute() -> bool {
    MAY_EXECUTE.load(Ordering::Relaxed)
}

/// The opener and the namer, and how to talk to them.
pub(super) struct Children {
    pub(super) opener: UnixStream,
    pub(super) namer: UnixStream,
    /// Empty if they are threads.
    processes: Vec<Child>,
}

/// Children that were asked to end, and have not ended yet.
#[derive(Default)]
pub(super) struct Left(Vec<LeftChild>);

struct LeftChild {
    child: Child,
    /// The owner whose record it worked for. `None` means that it ended by itself, for nobody.
    owner: Option<Owner>,
    /// The device of the file that it was asked for last.
    device: Option<u64>,
}

impl LeftChild {
    /// Does a file system block it? SIGKILL wakes it from all else; then it is about to end, which may take a while on a busy host.
    fn is_kept(&self) -> bool {
        stat_of(&self.child).is_some_and(|stat| stat.state == 'D')
    }
}

impl Left {
    fn reap(&mut self) {
        self.0.retain_mut(|left| matches!(left.child.try_wait(), Ok(None)));
    }

    /// Does one of them wait for this device?
    pub(super) fn waits_for(&mut self, device: u64) -> bool {
        self.reap();
        self.0.iter().any(|left| left.device == Some(device) && left.is_kept())
    }

    /// May one more be left behind because of this owner?
    pub(super) fn has_room_of(&mut self, owner: &Owner) -> bool {
        self.reap();
        self.0.iter().filter(|left| left.owner.as_ref() == Some(owner)).count() < LEFT_BY_ONE_MAX
    }

    /// May there be more children?
    pub(super) fn has_room(&mut self) -> bool {
        self.reap();
        self.0.len() < LEFT_MAX
    }
}

impl Children {
    /// Starts both.
    ///
    /// # Errors
    /// If there can't be more processes.
    pub(super) fn start(search: &SearchPath) -> io::Result<Self> {
        let (opener, openers) = UnixStream::pair()?;
        let (namer, namers) = UnixStream::pair()?;
        let (asks, answers) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        if !may_execute() {
            let search = search.clone();
            thread::Builder::new()
                .name("opener".to_owned())
                .spawn(move || served::open_files(openers, &answers, search))?;
            thread::Builder::new()
                .name("namer".to_owned())
                .stack_size(NAMER_STACK_BYTES)
                .spawn(move || served::do_jobs(namers, &asks, Fences::default))?;
            return Ok(Self { opener, namer, processes: Vec::new() });
        }
        let mut children = Self { opener, namer, processes: Vec::new() };
        let openers = OwnedFd::from(openers);
        children.processes.push(execute(opener_arguments(search), openers.into(), answers.into())?);
        let namers = OwnedFd::from(namers);
        children.processes.push(execute([NAMER.into()], namers.into(), asks.into())?);
        Ok(children)
    }

    /// Has none of them ended?
    pub(super) fn are_alive(&mut self) -> bool {
        self.processes.iter_mut().all(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How long both have run on a processor: their clocks, because a look into /proc costs some hundred times as much. `None` means that they
    /// are threads, or that one is gone.
    pub(super) fn ran(&self) -> Option<Duration> {
        let ran = |child: &Child| {
            let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(child.id()).ok()?)).ok()?;
            clock_gettime(clock).ok().map(Duration::from)
        };
        if self.processes.is_empty() { None } else { self.processes.iter().map(ran).sum() }
    }

    /// Does one of them want to run? Else both wait: for a file system, or one for the other.
    pub(super) fn want_to_run(&self) -> bool {
        self.processes.iter().filter_map(stat_of).any(|stat| stat.state == 'R')
    }

    /// Ends both, and waits for that no longer than `dying`. A child that did not end is left behind: it worked for `owner`, and the file that it
    /// was asked for last is on `device`.
    pub(super) fn leave(mut self, left: &mut Left, owner: Option<&Owner>, device: Option<u64>, dying: Duration) {
        let before = left.0.len();
        left.0.extend(self.processes.drain(..).map(|child| LeftChild { child, owner: owner.cloned(), device }));
        for left in &mut left.0 {
            // It may have ended by itself.
            let _ = left.child.kill();
        }
        let until = Instant::now() + dying;
        left.reap();
        while left.0.len() > before && Instant::now() < until {
            thread::sleep(dying / 20);
            left.reap();
        }
    }
}

/// Executes this program anew as a child.
///
/// # Errors
/// If there can't be more processes.
pub(super) fn execute(arguments: impl IntoIterator<Item = OsString>, input: Stdio, output: Stdio) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    // A group of its own: the terminal's Ctrl-C is for us, and names are still wanted then.
    command.args(arguments).arg0("faultline").env_clear().current_dir("/").process_group(0);
    command.stdin(input).stdout(output).stderr(nowhere::output()?).spawn()
}

fn stat_of(child: &Child) -> Option<procfs::process::Stat> {
    procfs::process::Process::new(i32::try_from(child.id()).ok()?).and_then(|process| process.stat()).ok()
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.processes {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_only_not_ended_yet_waits_for_no_file_system() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let mut left = Left(vec![LeftChild { child, owner: Some(Owner::User(1)), device: Some(7) }]);
        let begun = Instant::now();
        // At its start it may wait for its own file for a moment.
        while left.waits_for(7) {
            let is_late = begun.elapsed() > Duration::from_secs(60);
            assert!(!is_late, "no file system keeps it: others on that device have their names");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(left.0.len(), 1, "it has not ended");
        left.0[0].child.kill().unwrap();
        left.0[0].child.wait().unwrap();
        assert!(left.has_room() && left.0.is_empty());
    }

    #[test]
    fn one_owner_leaves_room_for_others() {
        let [one, other] = [Owner::User(1), Owner::User(2)];
        let mut left = Left::default();
        while left.has_room_of(&one) {
            let child = Command::new("sleep").arg("600").spawn().unwrap();
            left.0.push(LeftChild { child, owner: Some(one.clone()), device: None });
        }
        assert!(left.has_room() && left.has_room_of(&other));
        for left in &mut left.0 {
            left.child.kill().unwrap();
            left.child.wait().unwrap();
        }
        assert!(left.has_room_of(&one));
    }
}
