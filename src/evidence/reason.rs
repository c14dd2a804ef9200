//! Why the kernel has sent a signal on its own account.

use serde::{Deserialize, Serialize};

use crate::probe::abi::{fl_reason, fl_reason_flag, fl_reason_kind};

/// The event or the limit that the kernel sends a signal for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// Nobody reads what the process has written to a pipe or a socket.
    BrokenPipe,
    /// RLIMIT_FSIZE, bytes.
    FileSizeLimit,
    /// RLIMIT_CPU, seconds: the soft limit, for SIGKILL the hard one.
    CpuTimeLimit,
    /// RLIMIT_RTTIME, microseconds: the same.
    RealTimeLimit,
    /// A timer has expired: alarm(2), setitimer(2), timer_create(2).
    Timer,
    /// The exit signal that clone(2) was given.
    ChildEnded,
    /// PR_SET_PDEATHSIG.
    ParentEnded,
    /// PTRACE_O_EXITKILL.
    TracerEnded,
    /// Process 1 of its pid namespace has ended.
    PidNamespaceEnded,
    /// Somebody has written to cgroup.kill.
    CgroupKill,
    /// A memory cgroup has reached its limit, bytes.
    CgroupMemoryLimit,
    /// memory.oom.group: another process of its cgroup was chosen because memory was short.
    CgroupMemoryGroup,
    /// Memory was short, and no cgroup's limit was the reason.
    HostMemory,
    /// An event of a descriptor: O_ASYNC, F_SETLEASE, F_NOTIFY.
    DescriptorEvent,
    /// A message has come to a queue: mq_notify(3).
    MessageArrived,
    /// A key that stands for the signal, TIOCSIG, or another size of the window.
    Terminal,
    /// The terminal was hung up.
    TerminalHangup,
    /// A process of its group has used the terminal in the background.
    TerminalBackground,
    /// The leader of its session has ended.
    SessionEnded,
    /// Its stopped group has lost the last process that could continue it.
    GroupOrphaned,
    /// A thread has used up its time before its deadline: SCHED_FLAG_DL_OVERRUN.
    DeadlineOverrun,
}

/// A reason. `None` means that it has no such number, or that the number isn't known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// One word a reason.
    pub kind: ReasonKind,
    /// The limit, in its own unit.
    pub limit: Option<u64>,
    /// What has reached the limit, in the same unit; for the end of a process, and for a message, which process, as the host numbers it; of a
    /// descriptor its number.
    pub value: Option<u64>,
    /// The path of the cgroup whose limit it is; `None` means that it is none's, or that the cgroup has gone.
    pub cgroup: Option<String>,
}

impl Reason {
    /// What the kernel program has found; `None` means that it found none. `path` finds the path of a cgroup by its number.
    pub(crate) fn of(found: &fl_reason, path: impl Fn(u64) -> Option<String>) -> Option<Self> {
        let kind = match found.kind {
            fl_reason_kind::FL_REASON_BROKEN_PIPE => ReasonKind::BrokenPipe,
            fl_reason_kind::FL_REASON_FILE_SIZE => ReasonKind::FileSizeLimit,
            fl_reason_kind::FL_REASON_CPU_TIME => ReasonKind::CpuTimeLimit,
            fl_reason_kind::FL_REASON_REAL_TIME => ReasonKind::RealTimeLimit,
            fl_reason_kind::FL_REASON_TIMER => ReasonKind::Timer,
            fl_reason_kind::FL_REASON_CHILD_ENDED => ReasonKind::ChildEnded,
            fl_reason_kind::FL_REASON_PARENT_ENDED => ReasonKind::ParentEnded,
            fl_reason_kind::FL_REASON_TRACER_ENDED => ReasonKind::TracerEnded,
            fl_reason_kind::FL_REASON_NAMESPACE_ENDED => ReasonKind::PidNamespaceEnded,
            fl_reason_kind::FL_REASON_CGROUP_KILL => ReasonKind::CgroupKill,
            fl_reason_kind::FL_REASON_CGROUP_MEMORY => ReasonKind::CgroupMemoryLimit,
            fl_reason_kind::FL_REASON_CGROUP_GROUP => ReasonKind::CgroupMemoryGroup,
            fl_reason_kind::FL_REASON_HOST_MEMORY => ReasonKind::HostMemory,
            fl_reason_kind::FL_REASON_DESCRIPTOR => ReasonKind::DescriptorEvent,
            fl_reason_kind::FL_REASON_MESSAGE => ReasonKind::MessageArrived,
            fl_reason_kind::FL_REASON_TERMINAL => ReasonKind::Terminal,
            fl_reason_kind::FL_REASON_HANGUP => ReasonKind::TerminalHangup,
            fl_reason_kind::FL_REASON_BACKGROUND => ReasonKind::TerminalBackground,
            fl_reason_kind::FL_REASON_SESSION => ReasonKind::SessionEnded,
            fl_reason_kind::FL_REASON_ORPHANED => ReasonKind::GroupOrphaned,
            fl_reason_kind::FL_REASON_DEADLINE => ReasonKind::DeadlineOverrun,
            _ => return None,
        };
        let known = |flag: fl_reason_flag, number: u64| (found.flags.0 & flag.0 != 0).then_some(number);
        Some(Self {
            kind,
            limit: known(fl_reason_flag::FL_REASON_HAS_LIMIT, found.limit),
            value: known(fl_reason_flag::FL_REASON_HAS_VALUE, found.value),
            cgroup: if found.cgroup == 0 { None } else { path(found.cgroup) },
        })
    }
}
