//! The records of signals, of tasks that begin and end, and of how often who sent what to whom.

use std::collections::BTreeMap;

use serde::Serialize;

use super::oom::OutOfMemory;
use super::summary::Deliveries;
use super::{Head, Interval};
use crate::evidence::Reason;
use crate::probe::signal::TaskCounters;
use crate::time::Timestamp;

/// A signal that is sent. Fields as in docs/output.md; `None` is `null`, which means not known.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Signal {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// `SIGTERM`.
    pub signal: String,
    /// 15.
    pub signal_number: u32,
    /// `SI_USER`; `None` means that the hook doesn't show it.
    pub code: Option<String>,
    /// 0.
    pub code_number: Option<i32>,
    /// The sender; `None` means the kernel, on no process's behalf.
    pub sender: Option<Sender>,
    /// Why the kernel sent it on its own account; `None` means that it didn't, or that nothing proves why.
    pub reason: Option<Reason>,
    /// The target.
    pub target: Target,
    /// `process`: any of its threads may take it; `thread`: that one only.
    pub scope: &'static str,
    /// `delivered`, `ignored`, `already_pending`, `lost`; `None` means that the hook doesn't show it.
    pub result: Option<&'static str>,
    /// If the kernel sent it for a lack of memory: the target's size.
    pub oom: Option<OutOfMemory>,
    /// The processor it was sent on.
    pub cpu: u32,
}

/// The sender of a signal.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sender {
    /// The process, as the host numbers it.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The process in its own pid namespace.
    pub pid_in_namespace: u32,
    /// The process's name.
    pub comm: String,
    /// The real user id, as the host numbers it.
    pub uid: u32,
}

/// The target of a signal.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    /// The process, as the host numbers it; `None` means many, or not known.
    pub pid: Option<u32>,
    /// The thread; for a signal to a process, the thread by which the kernel looked the process up.
    pub tid: Option<u32>,
    /// The process in its own pid namespace.
    pub pid_in_namespace: Option<u32>,
    /// The process's name.
    pub comm: Option<String>,
}

/// A task, as the host numbers it: a process, or one of its threads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Task {
    /// The task.
    pub pid: u32,
    /// Its process: `pid` itself, unless it is a thread.
    pub tgid: u32,
    /// The process's parent.
    pub ppid: u32,
    /// The process in its own pid namespace.
    pub pid_in_namespace: u32,
    /// The process's name.
    pub comm: String,
}

/// A task that was made.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fork {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The new one.
    #[serde(flatten)]
    pub task: Task,
    /// True: a thread of a process that was there already.
    pub is_thread: bool,
}

/// A process that runs another program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Exec {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The process.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// The process in its own pid namespace.
    pub pid_in_namespace: u32,
    /// The program's path as the process sees it; `None` means that it is too long.
    pub exe: Option<String>,
    /// The process's new name.
    pub comm: String,
    /// The real user id, as the host numbers it.
    pub uid: u32,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<String>,
    /// The container; `None` means that it is in none of a known kind.
    pub container_id: Option<String>,
}

/// A task that has ended: a process with its last thread.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Exit {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// Its argument of exit(2); `None` means that a signal ended it.
    pub exit_code: Option<u32>,
    /// The signal that ended it.
    pub signal: Option<String>,
    /// The kernel has written a core file.
    pub core_dumped: bool,
    /// Other threads of the process go on.
    pub is_thread: bool,
}

/// All pairs that had signals in one interval; the last record of a run has all pairs that there were. Fields as in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SignalSummary {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The interval and the run.
    #[serde(flatten)]
    pub interval: Interval,
    /// Most frequent first.
    pub pairs: Vec<PairRow>,
    /// What was sent in this interval.
    pub deliveries: Deliveries,
    /// Tasks that began and ended in this interval; `None` means not asked for.
    pub processes: Option<TaskCounters>,
    /// Signals in no pair, by reason: `deliveries.matched` is the sum of these and of all `pairs[].count`.
    pub losses: BTreeMap<&'static str, u64>,
}

/// One sender, one target, one signal, one result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PairRow {
    /// `SIGTERM`.
    pub signal: String,
    /// The sender's name; `None` means the kernel, on no process's behalf.
    pub sender: Option<String>,
    /// The target's name.
    pub target: String,
    /// `delivered`, `ignored`, `already_pending`, `lost`; `None` means that the hook doesn't show it.
    pub result: Option<&'static str>,
    /// Signals in this interval.
    pub count: u64,
    /// Since `since`.
    pub total: u64,
    /// The first one's time.
    pub first_seen: Timestamp,
    /// The last one's, to the tick.
    pub last_seen: Timestamp,
}
