//! The records of signals, forks, execs and exits: the JSON and the text.

use std::fmt::Write;

use serde::Serialize;

use crate::output::{Record, Timestamp, escape};
use crate::record::oom::OutOfMemory;

/// A signal that is sent. Fields as in docs/output.md; `None` is `null`, which means not known.
#[derive(Clone, Debug, Serialize)]
pub struct Signal {
    /// Always `signal`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// See [`crate::output::SCHEMA`].
    pub schema: u32,
    /// When it was sent.
    pub timestamp: Timestamp,
    /// This machine's name.
    pub host: String,
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
pub struct Sender {
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
pub struct Target {
    /// The process, as the host numbers it; `None` means many, or not known.
    pub pid: Option<u32>,
    /// The thread; for a signal to a process, the one by which the kernel looked it up.
    pub tid: Option<u32>,
    /// The process in its own pid namespace.
    pub pid_in_namespace: Option<u32>,
    /// The process's name.
    pub comm: Option<String>,
}

/// A task that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Fork {
    /// Always `fork`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// See [`crate::output::SCHEMA`].
    pub schema: u32,
    /// When.
    pub timestamp: Timestamp,
    /// This machine's name.
    pub host: String,
    /// The new task.
    pub pid: u32,
    /// Its process: `pid` itself, unless it is a thread.
    pub tgid: u32,
    /// The process's parent.
    pub ppid: u32,
    /// The process in its own pid namespace.
    pub pid_in_namespace: u32,
    /// The process's name.
    pub comm: String,
    /// True: a thread of a process that was there already.
    pub is_thread: bool,
}

/// A process that runs another program.
#[derive(Clone, Debug, Serialize)]
pub struct Exec {
    /// Always `exec`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// See [`crate::output::SCHEMA`].
    pub schema: u32,
    /// When.
    pub timestamp: Timestamp,
    /// This machine's name.
    pub host: String,
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
pub struct Exit {
    /// Always `exit`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// See [`crate::output::SCHEMA`].
    pub schema: u32,
    /// When.
    pub timestamp: Timestamp,
    /// This machine's name.
    pub host: String,
    /// The task: a thread, or the process.
    pub pid: u32,
    /// Its process.
    pub tgid: u32,
    /// The process's parent.
    pub ppid: u32,
    /// The process in its own pid namespace.
    pub pid_in_namespace: u32,
    /// The process's name.
    pub comm: String,
    /// Its argument of exit(2); `None` means that a signal ended it.
    pub exit_code: Option<u32>,
    /// The signal that ended it.
    pub signal: Option<String>,
    /// The kernel has written a core file.
    pub core_dumped: bool,
    /// Other threads of the process go on.
    pub is_thread: bool,
}

/// `[bash/1234]`
fn party(comm: Option<&str>, pid: Option<u32>) -> String {
    let comm = comm.map_or_else(|| "?".to_owned(), escape);
    pid.map_or_else(|| format!("[{comm}]"), |pid| format!("[{comm}/{pid}]"))
}

impl Record for Signal {
    fn text(&self) -> String {
        let sender = self.sender.as_ref();
        let from = sender.map_or_else(|| "[kernel]".to_owned(), |it| party(Some(&it.comm), Some(it.pid)));
        let to = party(self.target.comm.as_deref(), self.target.pid);
        let mut text = format!(
            "[{}] SIGNAL: {} ({}) {from} -> {to}",
            self.timestamp.local_clock(),
            self.signal,
            self.signal_number
        );
        let mut more = Vec::new();
        more.extend(self.code.clone());
        if self.scope == "thread" {
            more.push(self.target.tid.map_or_else(|| "thread".to_owned(), |tid| format!("thread {tid}")));
        }
        more.extend(self.result.filter(|result| *result != "delivered").map(|result| result.replace('_', " ")));
        if let Some(oom) = &self.oom {
            more.push(oom.text());
        }
        if !more.is_empty() {
            // Writing to a String can't fail.
            let _ = write!(text, " {}", more.join(", "));
        }
        text.push('\n');
        text
    }
}

impl Record for Fork {
    fn text(&self) -> String {
        format!(
            "[{}] FORK: {} (pid={}, tgid={}, ppid={}){}\n",
            self.timestamp.local_clock(),
            escape(&self.comm),
            self.pid,
            self.tgid,
            self.ppid,
            if self.is_thread { " thread" } else { "" }
        )
    }
}

impl Record for Exec {
    fn text(&self) -> String {
        let exe = self.exe.as_deref().map_or_else(|| "unknown".to_owned(), escape);
        format!(
            "[{}] EXEC: {} (pid={}, tgid={}) {exe}\n",
            self.timestamp.local_clock(),
            escape(&self.comm),
            self.pid,
            self.pid
        )
    }
}

impl Record for Exit {
    fn text(&self) -> String {
        let how = match (&self.signal, self.exit_code) {
            (Some(signal), _) if self.core_dumped => format!(" {signal}, core dumped"),
            (Some(signal), _) => format!(" {signal}"),
            (None, Some(code)) => format!(" code {code}"),
            (None, None) => String::new(),
        };
        format!(
            "[{}] EXIT: {} (pid={}, tgid={}){}{how}\n",
            self.timestamp.local_clock(),
            escape(&self.comm),
            self.pid,
            self.tgid,
            if self.is_thread { " thread" } else { "" }
        )
    }
}
