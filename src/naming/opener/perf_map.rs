//! Finds the map of generated code that a process has written for perf: in its own mounts, a regular file of its own user, behind no link,
//! and written while the process lived, because a map of an earlier process of the same number has other names.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::ResolveFlags;

use super::place::is_in;
use super::relatives;
use crate::host;
use crate::naming::maps::process;
use crate::symbol::{Holder, PerfMap, look, look_below, reopen};
use crate::time::Timestamp;

/// The clock of files may be behind by a tick.
const TICK_NS: i128 = 20_000_000;

/// How long after a signal the last threads of a process may have written.
const DYING_NS: i128 = 1_000_000_000;

/// The map, if there is one. `same_mounts`: the process is in our mount namespace.
pub(super) fn find(wanted: &PerfMap, holder: Holder, taken_ns: i128, same_mounts: bool) -> Option<File> {
    let path = PathBuf::from(format!("tmp/perf-{}.map", wanted.pid_in_namespace));
    let span = span(wanted, holder.pid, taken_ns)?;
    let is_it = |metadata: &Metadata| metadata.uid() == wanted.uid && span.contains(&modified_ns(metadata));
    let below = |root: &Path| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let (file, metadata) = reopen(&look_below(&look(root)?, &path, resolve)?)?;
        is_it(&metadata).then_some(file)
    };
    let near = [holder.tid, holder.parent].into_iter().filter(|&pid| is_in(pid, holder.mount_namespace));
    let roots = near.map(|pid| process(pid).join("root")).chain(same_mounts.then(|| "/".into()));
    let far = (!same_mounts).then(|| relatives::in_mounts_of(holder)).into_iter().flatten();
    roots.chain(far.map(|pid| process(pid).join("root"))).find_map(|root| below(&root))
}

/// When the process may have written it. `None` means that another process has its number.
fn span(wanted: &PerfMap, pid: u32, taken_ns: i128) -> Option<std::ops::RangeInclusive<i128>> {
    match started_ns(pid) {
        Some(started) if started > taken_ns => None,
        Some(started) => Some(started - TICK_NS..=i128::MAX),
        // It is gone: its thread had begun by then.
        None => Some(wanted.started_ns - TICK_NS..=taken_ns + DYING_NS),
    }
}

fn started_ns(pid: u32) -> Option<i128> {
    let ns = host::started_boottime_ns(&host::of_process(pid, "stat").ok()?);
    Timestamp::from_boottime(ns.try_into().ok()?).ok().map(|started| started.unix_ns())
}

fn modified_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, FileTimes};
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn now_ns() -> i128 {
        Timestamp::now().unix_ns()
    }

    /// A map of the process of this number in its namespace, deleted when dropped.
    struct Map(PathBuf);

    impl Map {
        fn of(number: u32) -> Self {
            let path = PathBuf::from(format!("/tmp/perf-{number}.map"));
            let _ = fs::remove_file(&path);
            Self(path)
        }
    }

    impl Drop for Map {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn found(number: u32, uid: u32) -> bool {
        let pid = std::process::id();
        let mount_namespace = crate::host::mount_namespace().unwrap().try_into().unwrap();
        let holder = Holder { pid, tid: pid, parent: 0, mount_namespace };
        let wanted = PerfMap { pid_in_namespace: number, uid, started_ns: now_ns() };
        find(&wanted, holder, now_ns(), true).is_some()
    }

    /// Numbers that no process has: they are above the kernel's largest.
    const NUMBER: u32 = 4_200_000_000;

    #[test]
    fn it_is_a_regular_file_of_the_user_that_the_process_wrote() {
        let own = nix::unistd::geteuid().as_raw();
        let number = NUMBER + std::process::id() % 1000;
        let map = Map::of(number);
        assert!(!found(number, own), "there is none");
        fs::write(&map.0, "1000 10 x\n").unwrap();
        assert!(found(number, own));
        assert!(!found(number, own + 1), "it is another user's");
        let old = SystemTime::now() - Duration::from_secs(365 * 24 * 3600);
        File::options().write(true).open(&map.0).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
        assert!(!found(number, own), "it is of an earlier process");
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_opened() {
        let own = nix::unistd::geteuid().as_raw();
        let number = NUMBER + 1000 + std::process::id() % 1000;
        let (map, target) = (Map::of(number), Map::of(number + 1000));
        fs::write(&target.0, "1000 10 x\n").unwrap();
        symlink(&target.0, &map.0).unwrap();
        assert!(found(number + 1000, own) && !found(number, own));
        fs::remove_file(&map.0).unwrap();
        nix::unistd::mkfifo(&map.0, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!found(number, own));
    }

    #[test]
    fn what_was_written_later_is_of_another_process() {
        let wanted = PerfMap { pid_in_namespace: 1, uid: 0, started_ns: 100 * DYING_NS };
        let gone = span(&wanted, u32::MAX, 200 * DYING_NS).unwrap();
        assert!(gone.contains(&(100 * DYING_NS)) && gone.contains(&(201 * DYING_NS)));
        assert!(!gone.contains(&(99 * DYING_NS)) && !gone.contains(&(202 * DYING_NS)));
        assert_eq!(span(&wanted, std::process::id(), 200 * DYING_NS), None, "this process began after it");
    }
}
