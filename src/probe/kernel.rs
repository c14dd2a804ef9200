//! What the running kernel has.

use super::perf;
use super::types::Ids;
use crate::host;

/// Features of the kernel that ways and hooks depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(super) kprobes: bool,
    /// The kernel allows software events of perf.
    pub(super) perf_events: bool,
    /// A program at sched_process_exit can read the memory of the task that exits (v6.16).
    pub(super) exits_with_memory: bool,
    /// The kernel delivers a signal to a process that seccomp ends (v5.16).
    pub(super) delivers_seccomp_kills: bool,
    /// It is a real-time kernel. From v7.0 on it preempts programs at tracepoints, also where other kernels have interrupts off, and skips
    /// their runs meanwhile.
    pub(super) is_real_time: bool,
}

impl Kernel {
    /// Of this host, by its own types.
    pub(super) fn of(ids: &Ids) -> Self {
        let Ids { exits_with_memory, delivers_seccomp_kills, .. } = *ids;
        let (kprobes, perf_events, is_real_time) = (host::has_kprobe_pmu(), perf::is_allowed(), host::is_real_time());
        Self { kprobes, perf_events, exits_with_memory, delivers_seccomp_kills, is_real_time }
    }
}
