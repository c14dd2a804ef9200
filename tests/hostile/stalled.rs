//! A file system that stops answering while a program of its own dies: whoever looks for that program's names waits without end, and can't
//! even be killed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request, SessionACL,
};

use crate::forge::Forgery;
use crate::naming::Ambush;

const FILE: INodeNo = INodeNo(2);

/// The user whose programs die: none of the machine's.
const ATTACKER: u32 = 54_321;

/// What isn't answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    Nothing,
    /// Where the file is, and what it is.
    Look,
    Open,
    Read,
}

/// What the file system's thread and the test share.
struct Shared {
    stall: Stall,
    /// Answers that are not given; each is an error when it is dropped.
    held: Vec<Box<dyn Send>>,
}

/// One file.
struct OneFile {
    name: OsString,
    content: Vec<u8>,
    shared: Arc<Mutex<Shared>>,
}

impl OneFile {
    /// `None` means that the answer is kept back.
    fn answer<Reply: Send + 'static>(&self, what: Stall, reply: Reply) -> Option<Reply> {
        let mut shared = self.shared.lock().unwrap();
        if shared.stall != what {
            return Some(reply);
        }
        shared.held.push(Box::new(reply));
        None
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_root = inode == INodeNo::ROOT;
        FileAttr {
            ino: inode,
            size: if is_root { 0 } else { self.content.len() as u64 },
            blocks: 1,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_root { FileType::Directory } else { FileType::RegularFile },
            perm: 0o755,
            nlink: 1,
            uid: 54_321,
            gid: 54_321,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name != self.name {
            return reply.error(Errno::ENOENT);
        }
        if let Some(reply) = self.answer(Stall::Look, reply) {
            reply.entry(&Duration::ZERO, &self.attributes(FILE), Generation(0));
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if inode == INodeNo::ROOT {
            return reply.attr(&Duration::ZERO, &self.attributes(inode));
        }
        if let Some(reply) = self.answer(Stall::Look, reply) {
            reply.attr(&Duration::ZERO, &self.attributes(inode));
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if let Some(reply) = self.answer(Stall::Open, reply) {
            reply.opened(FileHandle(0), FopenFlags::empty());
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(reply) = self.answer(Stall::Read, reply) else { return };
        let start = self.content.len().min(offset as usize);
        let end = self.content.len().min(start + size as usize);
        reply.data(&self.content[start..end]);
    }
}

/// The file system, mounted. When dropped it answers again, and is unmounted.
pub(crate) struct Mounted<'a> {
    file: &'a Path,
    shared: Arc<Mutex<Shared>>,
    session: Option<BackgroundSession>,
}

impl<'a> Mounted<'a> {
    /// With `file` in it, and nothing else: it is mounted on that one's folder.
    pub(crate) fn with(file: &'a Path, content: Vec<u8>) -> Self {
        let shared = Arc::new(Mutex::new(Shared { stall: Stall::Nothing, held: Vec::new() }));
        let mut config = Config::default();
        config.acl = SessionACL::All;
        let (folder, name) = (file.parent().unwrap(), file.file_name().unwrap());
        let one = OneFile { name: name.to_owned(), content, shared: shared.clone() };
        let session = fuser::spawn_mount(one, folder, &config)
            .unwrap_or_else(|error| panic!("{error}: these tests need /dev/fuse: modprobe fuse"));
        Self { file, shared, session: Some(session) }
    }

    pub(crate) fn stall(&self, stall: Stall) {
        let mut shared = self.shared.lock().unwrap();
        shared.stall = stall;
        if stall == Stall::Nothing {
            shared.held.clear();
        }
    }
}

impl Mounted<'_> {
    /// Waits until it keeps somebody waiting.
    pub(crate) fn await_kept(&self) {
        let begun = Instant::now();
        while self.shared.lock().unwrap().held.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(30), "nobody asks it");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs its program, until that waits for a byte.
    pub(crate) fn run(&self) -> Child {
        self.stall(Stall::Nothing);
        run_until_it_reads(self.file)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        self.stall(Stall::Nothing);
        let _ = Command::new("umount").arg("-l").arg(self.file.parent().unwrap()).status();
        drop(self.session.take());
    }
}

/// Waits for a byte, and dies.
pub(crate) fn waiting_program() -> Forgery {
    // read(0, rsp, 1)
    let mut code = vec![0x31, 0xc0, 0x31, 0xff, 0x48, 0x89, 0xe6, 0xba, 1, 0, 0, 0, 0x0f, 0x05];
    let mut forgery = Forgery::named("victim", Vec::new());
    code.append(&mut forgery.code);
    Forgery { code, ..forgery }
}

/// Runs a program, until it waits for a byte.
pub(crate) fn run_until_it_reads(program: &Path) -> Child {
    run_as(0, program)
}

pub(crate) fn run_as(user: u32, program: &Path) -> Child {
    let child = Command::new(program).uid(user).stdin(Stdio::piped()).spawn().unwrap();
    let call = format!("/proc/{}/syscall", child.id());
    let begun = Instant::now();
    // read() has number 0.
    while !fs::read_to_string(&call).unwrap().starts_with("0 0x0 ") {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not read");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Runs the program as this user, and lets it die when the file system has stopped answering.
pub(crate) fn die_in(mounted: &Mounted<'_>, stall: Stall, user: u32) {
    mounted.stall(Stall::Nothing);
    let mut child = run_as(user, mounted.file);
    mounted.stall(stall);
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_file_system_that_does_not_answer() {
    let mut ambush = Ambush::new("stalled");
    let files = [(); 3].map(|()| ambush.place());
    let mut mounted: Vec<Mounted<'_>> = Vec::new();
    for (file, stall) in files.iter().zip([Stall::Look, Stall::Open, Stall::Read]) {
        mounted.push(Mounted::with(file, waiting_program().bytes()));
        die_in(mounted.last().unwrap(), stall, ATTACKER);
        ambush.agent.add_crashes(1);
        let what = format!("{stall:?}");
        let record = ambush.record_of(&what, file, 1);
        assert_eq!(record["symbols_failed"][0]["reason"], "timed_out", "{what}: {record:#}");
        assert!(record["stack_trace"][0]["offset"].is_string(), "{what}: {record:#}");
        // The ones that wait are still waiting.
        ambush.is_well(&what);
    }
    // Another file of a file system that keeps whoever asks it: nobody asks it again.
    let last = mounted.last().unwrap();
    die_in(last, Stall::Look, ATTACKER);
    ambush.agent.add_crashes(1);
    let record = ambush.record_of("again", last.file, 2);
    assert_eq!(record["symbols_failed"][0]["reason"], "failed_before", "{record:#}");
    die_in(&mounted[0], Stall::Read, ATTACKER);
    ambush.agent.add_crashes(1);
    ambush.agent.end_under(|_, _| ());
}
