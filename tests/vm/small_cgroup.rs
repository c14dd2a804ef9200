//! A cgroup with little memory.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The root of the cgroups that have a controller, and whether they are of version 1: where that has it, version 2 does not.
pub(crate) fn root_of(controller: &str) -> (PathBuf, bool) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounted = |kind: &str, option: &str| {
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let found =
            lines.find(|line| line[2] == kind && (option.is_empty() || line[3].split(',').any(|word| word == option)));
        found.map(|line| PathBuf::from(line[1]))
    };
    let first = mounted("cgroup", controller).map(|root| (root, true));
    first.or_else(|| Some((mounted("cgroup2", "")?, false))).expect("cgroup2 must be mounted")
}

/// Removed when dropped.
pub(crate) struct SmallCgroup(PathBuf);

impl SmallCgroup {
    /// `most`: of memory, as `16M`.
    pub(crate) fn new(name: &str, most: &str) -> Self {
        let (root, is_first_version) = root_of("memory");
        let folder = root.join(format!("faultline-{name}-{}", std::process::id()));
        if !is_first_version {
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        fs::create_dir(&folder).unwrap();
        let limit = if is_first_version { "memory.limit_in_bytes" } else { "memory.max" };
        fs::write(folder.join(limit), most).unwrap();
        Self(folder)
    }

    /// Runs a program in it that takes all of its memory.
    pub(crate) fn fill(&self, program: &str) -> u32 {
        let mut child = self.command(program).arg("/dev/zero").stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
        pid
    }

    /// A program that is to run in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\"/cgroup.procs; exec \"$@\""]).arg(&self.0).arg(program);
        command
    }

    /// How many processes in it were killed for want of memory.
    pub(crate) fn killed(&self) -> u64 {
        let read = |name: &str| fs::read_to_string(self.0.join(name));
        let text = read("memory.events").or_else(|_| read("memory.oom_control")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        line.parse().unwrap()
    }
}

impl Drop for SmallCgroup {
    fn drop(&mut self) {
        // The last process in it may be about to end.
        let begun = Instant::now();
        while fs::remove_dir(&self.0).is_err() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
