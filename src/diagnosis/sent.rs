//! Signals that the kernel sends on its own account, because of a limit or of something that has ended.

use super::words::size;
use super::{Diagnosis, Kind, sure};
use crate::evidence::{Evidence, Reason, ReasonKind};
use crate::siginfo::{SIGKILL, SIGQUIT};

/// The signal of a process that the kernel has sent it, if it is known why.
pub(super) fn diagnose(facts: &Evidence) -> Option<Diagnosis> {
    let reason = facts.reason.as_ref()?;
    // The kernel program sees only the delivery of a signal that dumps core: another thread may have forged the one of a terminal.
    let is_certain = reason.kind != ReasonKind::Terminal || facts.signal != SIGQUIT;
    let text = format!("the kernel sent it: {}", text(reason, facts.signal == SIGKILL));
    sure(is_certain, Kind::SentByKernel, text)
}

/// What the kernel knows of the reason, in words. `is_kill`: the signal is SIGKILL, which stands for hard limits.
pub(crate) fn text(reason: &Reason, is_kill: bool) -> String {
    let level = if is_kill { "hard" } else { "soft" };
    let limit =
        |text: &dyn Fn(u64) -> String| reason.limit.map(|limit| format!(" of {}", text(limit))).unwrap_or_default();
    let which = reason.value.map(|pid| format!(" (PID {pid})")).unwrap_or_default();
    match reason.kind {
        ReasonKind::BrokenPipe => {
            "it has written to a pipe or a socket that nobody reads, or to a socket that is not connected or was shut down"
                .to_owned()
        }
        ReasonKind::FileSizeLimit => {
            format!("it would have made a file longer than its limit{} (RLIMIT_FSIZE)", limit(&size))
        }
        ReasonKind::CpuTimeLimit => {
            let seconds = limit(&|seconds| format!("{seconds} s"));
            format!("it has used up its {level} limit{seconds} of processor time (RLIMIT_CPU)")
        }
        ReasonKind::RealTimeLimit => {
            let time = limit(&|time| format!("{time} us"));
            format!(
                "it has run with real-time priority, without a sleep, up to its {level} limit{time} (RLIMIT_RTTIME)"
            )
        }
        ReasonKind::Timer => "a timer of its own has expired".to_owned(),
        ReasonKind::ChildEnded => format!("a child{which} has ended, whose exit signal this is"),
        // The kernel counts the thread that has made the process as its parent.
        ReasonKind::ParentEnded => {
            "its parent has ended, or alone the thread of it that has made the process, and it has asked for this signal then".to_owned()
        }
        ReasonKind::TracerEnded => format!("its tracer{which} has ended (PTRACE_O_EXITKILL)"),
        ReasonKind::PidNamespaceEnded => format!("process 1 of its pid namespace{which} has ended"),
        ReasonKind::CgroupMemoryLimit => match (reason.limit, reason.value) {
            (Some(limit), Some(used)) => {
                let cgroup = reason.cgroup.as_deref().map(|path| format!(" {path}")).unwrap_or_default();
                format!("the memory cgroup{cgroup} has reached its limit of {} ({} used)", size(limit), size(used))
            }
            _ => "a memory cgroup that it is in has reached its limit".to_owned(),
        },
        ReasonKind::CgroupMemoryGroup => {
            "memory was short, another process of its cgroup was chosen, and memory.oom.group ends all of them"
                .to_owned()
        }
        ReasonKind::HostMemory => "the memory of the host was short, and no cgroup's limit was the reason".to_owned(),
        ReasonKind::CgroupKill => "its cgroup's cgroup.kill was written to".to_owned(),
        ReasonKind::DescriptorEvent => {
            let number = reason.value.map(|number| format!(" {number}")).unwrap_or_default();
            format!("its descriptor{number} has something to tell (O_ASYNC, F_SETLEASE, F_NOTIFY)")
        }
        ReasonKind::MessageArrived => format!(
            "a message{} has come to a queue (mq_notify)",
            reason.value.map(|pid| format!(" of PID {pid}")).unwrap_or_default()
        ),
        ReasonKind::Terminal => {
            "a key of its terminal stands for it, or somebody else at the terminal asked for it (TIOCSIG)".to_owned()
        }
        ReasonKind::TerminalHangup => "its terminal was hung up".to_owned(),
        ReasonKind::TerminalBackground => "a process of its group has used the terminal in the background".to_owned(),
        ReasonKind::SessionEnded => format!("the leader of its session{which} has ended"),
        ReasonKind::GroupOrphaned => {
            format!("its group was stopped, and the end of a process{which} has left nobody who could continue it")
        }
        ReasonKind::DeadlineOverrun => {
            "a thread of it has used up its time before its deadline (SCHED_FLAG_DL_OVERRUN)".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_numbers_that_are_known() {
        let reason = |kind, limit, value| Reason { kind, limit, value, cgroup: Some("/app".to_owned()) };
        let table = [
            (
                reason(ReasonKind::BrokenPipe, None, None),
                false,
                "it has written to a pipe or a socket that nobody reads, or to a socket that is not connected or was shut down",
            ),
            (
                reason(ReasonKind::CpuTimeLimit, Some(1), Some(1)),
                true,
                "it has used up its hard limit of 1 s of processor time (RLIMIT_CPU)",
            ),
            (
                reason(ReasonKind::CpuTimeLimit, None, None),
                false,
                "it has used up its soft limit of processor time (RLIMIT_CPU)",
            ),
            (
                reason(ReasonKind::FileSizeLimit, Some(8192), None),
                false,
                "it would have made a file longer than its limit of 8 KiB (RLIMIT_FSIZE)",
            ),
            (reason(ReasonKind::TracerEnded, None, Some(7)), true, "its tracer (PID 7) has ended (PTRACE_O_EXITKILL)"),
            (reason(ReasonKind::PidNamespaceEnded, None, None), true, "process 1 of its pid namespace has ended"),
            (
                reason(ReasonKind::CgroupMemoryLimit, Some(16 << 20), Some(16 << 20)),
                true,
                "the memory cgroup /app has reached its limit of 16.0 MiB (16.0 MiB used)",
            ),
            (
                reason(ReasonKind::CgroupMemoryLimit, None, None),
                true,
                "a memory cgroup that it is in has reached its limit",
            ),
        ];
        for (reason, is_kill, text) in table {
            assert_eq!(super::text(&reason, is_kill), text);
        }
    }
}
