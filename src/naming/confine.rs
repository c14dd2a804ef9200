//! What the children give up before they look at anything that a watched process has made. A step may be refused, by an old kernel or for
//! want of privileges: the other steps still hold, and [`Fences`] says which do.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use landlock::{
    ABI, Access, AccessFs, AccessNet, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, chdir, chroot, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};
use serde::{Deserialize, Serialize};

use super::calls;
use crate::page;

/// How much memory the namer may have for itself; what it copies of files comes on top of it, which has a bound of its own.
const NAMER_BYTES_MAX: u64 = 256 << 20;

/// Users that own nothing, and their groups, the better one first. Other services are nobody as well (65534), and whoever has the same user
/// may stop and end the child. The first is in a range that systemd gives to nobody (its UIDS-GIDS.md), above those of containers and
/// directories; only a user namespace may lack it.
const UNUSED: [u32; 2] = [2_147_418_111, 65534];

/// Which of the things that the namer gives up it has given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fences {
    /// It has no capability, and can get none.
    pub capabilities: bool,
    /// Its user owns nothing. A service that has a user of its own keeps it.
    pub user: bool,
    /// Its root holds its own descriptors and nothing else.
    pub root: bool,
    /// The kernel's Landlock lets it open no path.
    pub landlock: bool,
    /// A filter lets through the few system calls that it needs: none of them makes a socket or a process.
    pub calls: bool,
}

impl Fences {
    /// Do enough of them hold that its parsers can do no worse than to give wrong names?
    pub(crate) fn are_whole(self) -> bool {
        self.capabilities && self.calls && (self.root || self.landlock)
    }

    /// Those that hold, and those that don't, in words.
    pub(crate) fn words(self) -> String {
        let named = [
            (self.capabilities, "capabilities"),
            (self.user, "user"),
            (self.root, "root"),
            (self.landlock, "landlock"),
            (self.calls, "seccomp"),
        ];
        let list = |wanted: bool| {
            let names: Vec<&str> = named.iter().filter(|(holds, _)| *holds == wanted).map(|(_, name)| *name).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        format!("given up by the child that parses files: {}; kept: {}", list(true), list(false))
    }
}

/// The namer: no file system, no network, no privileges, and bounded memory. Also returns the folder in which its descriptors have names.
pub(super) fn namer() -> (Fences, &'static Path) {
    // It is kept: its file can't be opened later.
    page::size();
    // A limit that is refused is lower already.
    let _ = setrlimit(Resource::RLIMIT_DATA, NAMER_BYTES_MAX, NAMER_BYTES_MAX);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // When memory is short, the kernel kills it first.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let is_bound = set_no_new_privs(true).is_ok();
    // The symbolizer takes paths.
    let root = chroot("/proc/self/fd").and_then(|()| chdir("/")).is_ok();
    let folder = if root { "/" } else { "/proc/self/fd" };
    let user = become_unused();
    let capabilities = keep_capabilities(CapabilitySet::empty()) && is_bound;
    // A change of user or capabilities takes it back.
    super::settle::end_with_parent();
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let landlock = landlock().is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced);
    let calls = calls::allow_namers().is_ok();
    (Fences { capabilities, user, root, landlock, calls }, Path::new(folder))
}

/// The opener: it may look at any process and read any file, and nothing else. It keeps its user, because that user's own file systems
/// (FUSE) admit no other. It has no Landlock, which would forbid it to look at other processes.
pub(super) fn opener() {
    look_only(calls::allow_openers);
}

/// The keeper: the same, and it makes copies in memory.
pub(super) fn keeper() {
    look_only(calls::allow_keepers);
}

fn look_only(allow: fn() -> Result<()>) {
    page::size();
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = set_no_new_privs(true);
    let mut kept = CapabilitySet::DAC_READ_SEARCH | CapabilitySet::SYS_PTRACE;
    // /proc/PID/map_files needs one of these two; CAP_CHECKPOINT_RESTORE is there since v5.9.
    kept |= if has_checkpoint_restore() { CapabilitySet::CHECKPOINT_RESTORE } else { CapabilitySet::SYS_ADMIN };
    keep_capabilities(kept);
    super::settle::end_with_parent();
    // Without the filter it goes on: it parses nothing.
    let _ = allow();
}

/// The fetcher, which receives a file from a network: it may read what it needs to reach the server, and write so many bytes to open files.
pub(super) fn fetcher(bytes: u64) {
    let _ = setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes);
    let _ = setrlimit(Resource::RLIMIT_DATA, NAMER_BYTES_MAX, NAMER_BYTES_MAX);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let _ = set_no_new_privs(true);
    become_unused();
    keep_capabilities(CapabilitySet::empty());
    super::settle::end_with_parent();
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = landlock_to_read();
}

/// Names of hosts and libraries can be read; nothing else can, and nothing be executed or written.
fn landlock_to_read() -> Result<RestrictionStatus> {
    let abi = ABI::V6;
    let folders = ["/etc", "/usr", "/lib", "/lib64", "/run"];
    let rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?.scope(Scope::from_all(abi))?.create()?;
    let rules = rules.add_rules(path_beneath_rules(folders, AccessFs::ReadFile | AccessFs::ReadDir))?;
    Ok(rules.restrict_self()?)
}

/// False: it is root, and remains it. A user that isn't root stays the same. So does root if it could not end the child then.
fn become_unused() -> bool {
    if !Uid::effective().is_root() {
        return true;
    }
    let had = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    if !had.contains(CapabilitySet::KILL) {
        return false;
    }
    let become_one = |id: u32| {
        let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
        setresgid(group, group, group).and_then(|()| setresuid(user, user, user)).is_ok()
    };
    setgroups(&[]).is_ok() && UNUSED.into_iter().any(become_one)
}

/// Gives up all capabilities but these, as far as there were any. False: it could not.
fn keep_capabilities(kept: CapabilitySet) -> bool {
    let _ = clear_ambient_capability_set();
    let had = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
    let both = had & kept;
    let sets = CapabilitySets { effective: both, permitted: both, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).and_then(|()| capabilities(None)).is_ok_and(|sets| sets.permitted == both)
}

fn has_checkpoint_restore() -> bool {
    let mut last = String::new();
    let read = fs::File::open("/proc/sys/kernel/cap_last_cap").and_then(|file| file.take(16).read_to_string(&mut last));
    let number = CapabilitySet::CHECKPOINT_RESTORE.bits().trailing_zeros();
    read.is_err() || last.trim().parse::<u32>().is_ok_and(|last| last >= number)
}

/// Forbids paths, ports, and signals to other processes, as far as this kernel can.
fn landlock() -> Result<RestrictionStatus> {
    let abi = ABI::V6;
    let rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?.handle_access(AccessNet::from_all(abi))?;
    Ok(rules.scope(Scope::from_all(abi))?.create()?.restrict_self()?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, ErrorKind};
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

    use super::*;

    /// Runs one of the tests below in a process of its own: there is no way back.
    fn alone(name: &str) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", &format!("naming::confine::tests::{name}")])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{:?}", output.status);
    }

    fn is_refused<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    fn assert_talks_to_nobody() {
        assert!(is_refused(TcpListener::bind("127.0.0.1:0")));
        assert!(is_refused(UnixStream::pair()));
        assert!(is_refused(Command::new("/bin/true").spawn()));
        let parent = rustix::process::getppid().unwrap();
        assert!(rustix::process::test_kill_process(parent).is_err());
        let page = std::num::NonZeroUsize::new(4096).unwrap();
        // SAFETY: new memory of the kernel's choosing, which nothing refers to.
        let code = unsafe { mmap_anonymous(None, page, ProtFlags::PROT_EXEC, MapFlags::MAP_PRIVATE) };
        assert!(code.is_err());
    }

    #[test]
    fn the_namer_can_do_nothing_but_parse() {
        alone("as_the_namer");
    }

    #[test]
    #[ignore = "the test above runs it, in a process that ends then"]
    fn as_the_namer() {
        let is_root = Uid::effective().is_root();
        let given = File::open("/proc/self/exe").unwrap();
        let (fences, folder) = namer();
        assert!(fences.are_whole() && fences.user && fences.root == is_root, "{}", fences.words());
        assert!(!is_root || UNUSED.contains(&rustix::process::getuid().as_raw()));
        for path in ["/etc/passwd", "/proc/self/status", "/", "/proc/1/environ", "/dev/null"] {
            assert!(!is_root || path == "/" || File::open(path).is_err(), "{path}");
        }
        assert!(fs::read_dir("/etc").is_err());
        assert!(fs::write("/tmp/faultline-namer", b"").is_err() && fs::write("faultline-namer", b"").is_err());
        assert_talks_to_nobody();
        // What it lives of.
        let mut bytes = [0; 4];
        given.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\x7fELF");
        let copy = File::from(memfd_create(c"copy", MFdFlags::MFD_CLOEXEC).unwrap());
        copy.write_all_at(&bytes, 0).unwrap();
        let again = File::open(folder.join(copy.as_raw_fd().to_string())).unwrap();
        again.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(vec![1_u8; 32 << 20].iter().map(|&byte| usize::from(byte)).sum::<usize>(), 32 << 20);
        let too_much = std::alloc::Layout::from_size_align(512 << 20, 16).unwrap();
        // SAFETY: the size is not 0, and there is nothing to be freed.
        let memory = std::hint::black_box(unsafe { std::alloc::alloc(too_much) });
        assert!(memory.is_null(), "its memory has a bound");
    }

    #[test]
    fn the_opener_can_look_and_nothing_else() {
        alone("as_the_opener");
    }

    #[test]
    #[ignore = "the test above runs it, in a process that ends then"]
    fn as_the_opener() {
        opener();
        assert_only_looks();
        assert!(is_refused(memfd_create(c"copy", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)));
    }

    #[test]
    fn the_keeper_can_look_and_copy_and_nothing_else() {
        alone("as_the_keeper");
    }

    #[test]
    #[ignore = "the test above runs it, in a process that ends then"]
    fn as_the_keeper() {
        let inotify = inotify::init(CreateFlags::CLOEXEC).unwrap();
        keeper();
        assert_only_looks();
        let watch = inotify::add_watch(&inotify, "/proc/self/exe", WatchFlags::ATTRIB).unwrap();
        inotify::remove_watch(&inotify, watch).unwrap();
        let own = File::open("/proc/self/exe").unwrap();
        let copy = crate::symbol::copy_whole(&own, 4096).unwrap();
        assert!(crate::symbol::is_elf(&copy) && copy.write_at(b"x", 0).is_err(), "it is sealed");
    }

    fn assert_only_looks() {
        let kept = CapabilitySet::DAC_READ_SEARCH | CapabilitySet::SYS_PTRACE | CapabilitySet::CHECKPOINT_RESTORE;
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let sets = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        assert_eq!((sets("CapEff") & !kept.bits(), sets("CapPrm") & !kept.bits(), sets("CapInh")), (0, 0, 0));
        assert_eq!((sets("Seccomp:"), sets("NoNewPrivs:")), (2, 1));
        assert!(fs::read_link("/proc/self/exe").is_ok());
        assert!(fs::read_dir("/proc").unwrap().count() > 2);
        assert!(is_refused(fs::write("/tmp/faultline-opener", b"")));
        assert!(is_refused(fs::create_dir("/tmp/faultline-opener")) && is_refused(fs::remove_file("/nonexistent/x")));
        assert_talks_to_nobody();
    }

    #[test]
    fn fences_have_words() {
        let some = Fences { capabilities: true, calls: true, ..Fences::default() };
        assert!(!some.are_whole());
        assert_eq!(
            some.words(),
            "given up by the child that parses files: capabilities, seccomp; kept: user, root, landlock"
        );
        assert!(Fences { root: true, ..some }.are_whole() && Fences { landlock: true, ..some }.are_whole());
        assert!(!Fences { landlock: true, capabilities: false, ..some }.are_whole());
    }
}
