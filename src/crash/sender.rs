//! Who sent a signal, as far as the kernel program, siginfo and /proc show it.

use procfs::process::Stat;

use crate::host;
use crate::probe::abi::{fl_crash, fl_crash_flag};
use crate::record::crash::Sender;
use crate::text;

/// The process that sent the signal. It looks for a living process: the sooner, the better.
pub(super) fn of(raw: &fl_crash) -> Option<Sender> {
    let has = |flag: fl_crash_flag| raw.flags.0 & flag.0 != 0;
    if !has(fl_crash_flag::FL_IS_FORGED) {
        return has(fl_crash_flag::FL_HAS_SENDER).then(|| other(raw));
    }
    raw.is_forged_by_itself().then(|| itself(raw))
}

/// The process as the sender of its own signal.
fn itself(raw: &fl_crash) -> Sender {
    Sender { pid: Some(raw.pid), tid: None, comm: Some(raw.comm()), uid: Some(raw.uid) }
}

/// The sender as far as siginfo shows it: its numbers are those of the target's namespaces.
fn other(raw: &fl_crash) -> Sender {
    if raw.flags.0 & fl_crash_flag::FL_SENDER_SEEN.0 != 0 {
        return Sender {
            pid: Some(raw.sender_pid.unsigned_abs()),
            tid: Some(raw.sender_tid),
            comm: Some(text::name(&raw.sender_comm)),
            uid: Some(raw.sender_uid),
        };
    }
    if raw.sender_pid > 0 && raw.sender_pid as u32 == raw.pid_in_namespace {
        return itself(raw);
    }
    let is_host_pid = raw.sender_pid > 0 && raw.flags.0 & fl_crash_flag::FL_IN_PID_NAMESPACE.0 == 0;
    let pid = is_host_pid.then_some(raw.sender_pid as u32);
    Sender {
        pid,
        tid: None,
        comm: pid.and_then(|pid| living_name(pid, raw.timestamp_ns)),
        uid: (raw.flags.0 & fl_crash_flag::FL_IN_USER_NAMESPACE.0 == 0).then_some(raw.sender_uid),
    }
}

/// The name of a process that is still there and was there at `boottime_ns`; a later one with its number is another.
fn living_name(pid: u32, boottime_ns: u64) -> Option<String> {
    let stat: Stat = host::of_process(pid, "stat").ok()?;
    (host::started_boottime_ns(&stat) <= u128::from(boottime_ns)).then_some(stat.comm)
}
