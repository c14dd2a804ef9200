//! How long threads have waited for a processor. What others of this machine take of it is no part of what an attack costs, nor is what the
//! attack takes, which anybody can take.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time since something began, and the threads that have had to act since then.
pub(crate) struct Fair {
    began: Instant,
    threads: Vec<(PathBuf, Duration)>,
}

impl Fair {
    /// Begins now. This thread, a folder in /proc, acts.
    pub(crate) fn begin(task: PathBuf) -> Self {
        let before = waited(&task);
        Self { began: Instant::now(), threads: vec![(task, before)] }
    }

    /// So does the one that calls this.
    pub(crate) fn with_own(mut self) -> Self {
        let own = PathBuf::from(format!("/proc/self/task/{}", nix::unistd::gettid()));
        let before = waited(&own);
        self.threads.push((own, before));
        self
    }

    /// Since the beginning, less the time in which they have waited for a processor. What waits now counts when it goes on.
    pub(crate) fn elapsed(&self) -> Duration {
        let passed = self.began.elapsed();
        let starved: Duration = self.threads.iter().map(|(task, before)| waited(task).saturating_sub(*before)).sum();
        passed.saturating_sub(starved)
    }
}

/// The thread of a process that has this name.
pub(crate) fn thread(pid: u32, name: &str) -> PathBuf {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let is_named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    tasks.find(is_named).unwrap_or_else(|| panic!("{pid} has no thread {name}"))
}

/// How long a thread has waited for a processor in its life: the second number of schedstat, ns. One that has gone waits no more.
fn waited(task: &Path) -> Duration {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split(' ').nth(1).map_or(Duration::ZERO, |waited| Duration::from_nanos(waited.parse().unwrap()))
}
