//! The copies of files that were deleted or replaced while processes ran them. The keeper makes them, and is started anew if it fails. The
//! copies are held here, and the namer of a crash gets those of its files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::KEEPER;
use super::children::{execute, may_execute};
use super::frame::decode;
use super::keeper::{Avoided, COPIES_MAX, Copied, Said};
use super::maps::process;
use super::opener::FileOwner;
use super::passing::{FILES_MAX, take};
use crate::nowhere;
use crate::symbol::{FileRequest, Opening};
use crate::time::{Timestamp, boottime_ns};

/// A keeper that has said nothing for so long waits for a file system.
const STALLED: Duration = Duration::from_secs(60);

/// The next one is started after such a time.
const PAUSE: Duration = Duration::from_secs(10);

/// How long one may take to die.
const DYING: Duration = Duration::from_millis(500);

/// As long as so many of them don't die, there is no other.
const LEFT_MAX: usize = 4;

/// What the keeper says is short.
const SAID_BYTES_MAX: usize = 1024;

/// A copy that is there.
struct Copy {
    of: Copied,
    /// `None` means that processes run the file.
    ended_ns: Option<u64>,
    file: Arc<File>,
}

impl Copy {
    /// Is this the file that a process ran when it crashed?
    fn is_of(&self, wanted: &FileRequest, taken: Moment) -> bool {
        let is_sure = wanted.build_id.is_some() || (!self.of.needs_build_id && self.of.changed_ns <= taken.unix_ns);
        self.of.ids.contains(&wanted.id)
            && is_sure
            && i128::from(self.of.since_ns) <= taken.boottime_ns
            && self.ended_ns.is_none_or(|ended| taken.boottime_ns <= i128::from(ended))
    }
}

/// When a record was taken, by both clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    unix_ns: i128,
    boottime_ns: i128,
}

impl Moment {
    /// `None` means that the clocks can't be read.
    fn of(unix_ns: i128) -> Option<Self> {
        let now = boottime_ns().ok()?;
        let ahead = Timestamp::from_boottime(now).ok()?.unix_ns() - i128::from(now);
        Some(Self { unix_ns, boottime_ns: unix_ns - ahead })
    }
}

/// All copies.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Shelf>);

#[derive(Default)]
struct Shelf {
    copies: Vec<Copy>,
    lost: u64,
}

impl Kept {
    /// Begins to keep. `None` means that it can't be: this program can't be executed anew.
    pub(super) fn start() -> Option<Arc<Self>> {
        if !may_execute() {
            return None;
        }
        let kept = Arc::new(Self::default());
        let shared = kept.clone();
        // Not by the thread: whoever waits for this call may rely on there being no more processes.
        let first = start(&Avoided::default());
        thread::Builder::new().name("keeping".to_owned()).spawn(move || keep(&shared, first)).ok()?;
        Some(kept)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copies of files of a record, by their numbers in it, and whose files they are of.
    pub(super) fn of(&self, opening: &Opening) -> Vec<((usize, FileOwner), Arc<File>)> {
        let Some(taken) = Moment::of(opening.taken_ns) else { return Vec::new() };
        let found = opening.files.iter().enumerate().filter_map(|(number, file)| {
            let (owner, copy) = self.find(file, taken)?;
            Some(((number, owner), copy))
        });
        found.take(FILES_MAX).collect()
    }

    /// The copy of a file that a process ran when it crashed, and whose it was. `None` means that there is none.
    fn find(&self, wanted: &FileRequest, taken: Moment) -> Option<(FileOwner, Arc<File>)> {
        let shelf = self.lock();
        shelf.copies.iter().find(|copy| copy.is_of(wanted, taken)).map(|copy| (copy.of.owner, copy.file.clone()))
    }

    /// How many files there was no room for, since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn take(&self, said: Said, file: Option<File>) {
        let mut shelf = self.lock();
        match said {
            Said::Lives | Said::Looks(_) => {}
            Said::Copied(of) => {
                if let Some(file) = file.filter(|_| shelf.copies.len() < COPIES_MAX) {
                    shelf.copies.push(Copy { of, ended_ns: None, file: Arc::new(file) });
                }
            }
            Said::Ended { number, at_ns } => {
                if let Some(copy) = shelf.copies.iter_mut().find(|copy| copy.of.number == number) {
                    copy.ended_ns = Some(at_ns);
                }
            }
            Said::Forget(number) => shelf.copies.retain(|copy| copy.of.number != number),
            Said::Lost => shelf.lost += 1,
        }
    }

    fn clear(&self) {
        self.lock().copies.clear();
    }
}

/// Starts one keeper after another.
fn keep(kept: &Kept, first: io::Result<(Child, OwnedFd)>) {
    let (mut left, mut avoided): (Vec<Child>, Avoided) = (Vec::new(), Avoided::default());
    let mut next = Some(first);
    loop {
        left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if left.len() < LEFT_MAX
            && let Ok((child, from)) = next.take().unwrap_or_else(|| start(&avoided))
        {
            let mut device = None;
            let stalled = listen(kept, &from, &mut device).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            if stalled {
                avoided.add(device, read_by(child.id()).into_iter());
            }
            left.extend(end(child));
        }
        // The next one finds what is still run.
        kept.clear();
        thread::sleep(PAUSE);
    }
}

/// The processes whose mappings this process reads.
fn read_by(pid: u32) -> Vec<u32> {
    let open = fs::read_dir(process(pid).join("fd")).into_iter().flatten();
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let pids = links.filter_map(|link| link.to_str()?.strip_prefix("/proc/")?.strip_suffix("/maps")?.parse().ok());
    pids.collect()
}

fn start(avoided: &Avoided) -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&ours, Timeout::Recv, Some(STALLED))?;
    let arguments = std::iter::once(OsString::from(KEEPER)).chain(avoided.arguments());
    Ok((execute(arguments, Stdio::from(theirs), nowhere::output()?)?, ours))
}

/// Reads what the keeper says until it ends. `device`: the one that it looks at.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] if it doesn't answer.
fn listen(kept: &Kept, from: &OwnedFd, device: &mut Option<u64>) -> io::Result<()> {
    let mut bytes = [0; SAID_BYTES_MAX];
    loop {
        let (length, files) = match take(from, &mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            taken => taken?,
        };
        if length == 0 {
            return Ok(());
        }
        let said = decode(bytes.get(..length).unwrap_or_default())?;
        if let Said::Looks(looks) = said {
            *device = Some(looks);
        }
        kept.take(said, files.into_iter().next());
    }
}

/// Ends it. One that doesn't is left behind.
fn end(mut child: Child) -> Option<Child> {
    // It may have ended by itself.
    let _ = child.kill();
    let until = Instant::now() + DYING;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return None;
        }
        thread::sleep(DYING / 20);
    }
    Some(child)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::FileId;
    use crate::naming::job::tests::job;

    fn copied(number: u64) -> Copied {
        let ids = vec![FileId { inode: 1, device: 1 }, FileId { inode: 1, device: 9 }];
        let file = File::open("/proc/self/status").unwrap();
        let owner = FileOwner::of(&file, &file.metadata().unwrap());
        Copied { number, ids, since_ns: 100, changed_ns: 50, needs_build_id: false, owner }
    }

    fn kept(of: Copied) -> Kept {
        let kept = Kept::default();
        kept.take(Said::Copied(of), Some(File::open("/proc/self/status").unwrap()));
        kept
    }

    fn wanted(build_id: Option<Vec<u8>>) -> FileRequest {
        FileRequest { build_id, ..job().opening.files[0].clone() }
    }

    fn has(shelf: &Kept, file: &FileRequest, taken_ns: i128) -> bool {
        shelf.find(file, Moment { unix_ns: taken_ns, boottime_ns: taken_ns }).is_some()
    }

    #[test]
    fn a_copy_is_of_one_inode_as_long_as_no_other_file_can_have_its_number() {
        let shelf = kept(copied(1));
        let mut file = wanted(None);
        assert!(has(&shelf, &file, 100) && has(&shelf, &file, i128::MAX));
        assert!(!has(&shelf, &file, 99), "before it was watched another one may have had it");
        file.id.device = 9;
        assert!(has(&shelf, &file, 100));
        file.id.device = 2;
        assert!(!has(&shelf, &file, 100));
        file.id = FileId { inode: 2, device: 1 };
        assert!(!has(&shelf, &file, 100));
        shelf.take(Said::Ended { number: 1, at_ns: 200 }, None);
        let file = wanted(None);
        assert!(has(&shelf, &file, 200) && !has(&shelf, &file, 201), "another one may have it now");
        shelf.take(Said::Forget(1), None);
        assert!(!has(&shelf, &file, 150));
    }

    #[test]
    fn what_may_be_another_version_needs_a_build_id() {
        let changed = kept(Copied { changed_ns: 150, ..copied(1) });
        assert!(!has(&changed, &wanted(None), 149) && has(&changed, &wanted(None), 150));
        assert!(has(&changed, &wanted(Some(vec![1])), 149), "the build id says whether it is that one");
        let ambiguous = kept(Copied { needs_build_id: true, ..copied(1) });
        assert!(!has(&ambiguous, &wanted(None), 200) && has(&ambiguous, &wanted(Some(vec![1])), 200));
    }

    #[test]
    fn whose_mappings_are_read_is_known() {
        let (own, _maps) = (std::process::id(), File::open("/proc/self/maps").unwrap());
        assert!(read_by(own).contains(&own));
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let shelf = Kept::default();
        for number in 0..COPIES_MAX as u64 + 10 {
            shelf.take(Said::Copied(copied(number)), Some(File::open("/proc/self/status").unwrap()));
        }
        assert_eq!(shelf.lock().copies.len(), COPIES_MAX);
        shelf.take(Said::Copied(copied(1)), None);
        shelf.take(Said::Lost, None);
        assert_eq!(shelf.lost(), 1);
    }
}
