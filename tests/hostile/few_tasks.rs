//! A cgroup in which there is no room for another task, as in a unit that has used up its TasksMax=.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::small_cgroup::root_of;

/// Removed when dropped.
pub(crate) struct FewTasks(PathBuf);

impl FewTasks {
    /// Without a limit yet.
    pub(crate) fn new(name: &str) -> Self {
        let (root, is_first_version) = root_of("pids");
        if !is_first_version {
            fs::write(root.join("cgroup.subtree_control"), "+pids").unwrap();
        }
        let folder = root.join(format!("faultline-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// A program that is to run in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\"/cgroup.procs; exec \"$@\""]).arg(&self.0).arg(program);
        command
    }

    /// The tasks that are there are all that there may be.
    pub(crate) fn close(&self) {
        let now = fs::read_to_string(self.0.join("pids.current")).unwrap();
        fs::write(self.0.join("pids.max"), now.trim_end()).unwrap();
    }

    /// How often another one was asked for.
    pub(crate) fn refused(&self) -> u64 {
        let text = fs::read_to_string(self.0.join("pids.events")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("max ")).unwrap().parse().unwrap()
    }
}

impl Drop for FewTasks {
    fn drop(&mut self) {
        // The last task in it may be about to end.
        let begun = Instant::now();
        while fs::remove_dir(&self.0).is_err() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
