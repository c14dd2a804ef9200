//! The calls that change mappings, and how each way sees them begin and end.

use crate::arch;
use crate::probe::hook::{Hook, Way};

/// Calls whose result matters.
pub(super) const LEAVES: [&str; 9] =
    ["mmap", "mprotect", "pkey_mprotect", "munmap", "mremap", "brk", "shmat", "shmdt", "memfd_create"];
/// Calls that take memory away.
pub(super) const ENTERS: [&str; 6] = ["munmap", "mremap", "mmap", "shmdt", "execve", "execveat"];
/// A call that takes no lock by which we would see it. Its entry is watched while there is memory that can change by itself.
pub(super) const DROPS: &str = "madvise";
/// Calls that end a process, for kernels whose sched_process_exit comes too late.
pub(super) const ENDS: [&str; 2] = ["exit_group", "exit"];
/// Where the whole machine is watched.
pub(super) const EXEC_MEM_CALLS: [&str; 3] = ["mmap", "mprotect", "pkey_mprotect"];

/// The kernel's function behind a system call.
pub(super) fn symbol(name: &str) -> String {
    format!("{}{name}", arch::syscall::PREFIX)
}

/// The hooks that see these calls begin.
pub(super) fn begins(way: Way, names: &[&str]) -> Vec<Hook> {
    match way {
        Way::Kprobe => names.iter().map(|name| Hook::kprobe("fl_call_begins", symbol(name))).collect(),
        Way::Raw => vec![Hook::raw("fl_raw_sys_both", "sys_enter")],
        _ => names.iter().map(|name| Hook::syscall("fl_sys_both", format!("sys_enter_{name}"))).collect(),
    }
}

/// The hooks that see them end.
pub(super) fn ends(way: Way, names: &[&str]) -> Vec<Hook> {
    match way {
        Way::Kprobe => names.iter().map(|name| Hook::kretprobe("fl_call_ends", symbol(name))).collect(),
        Way::Raw => vec![Hook::raw("fl_raw_sys_both", "sys_exit")],
        _ => names.iter().map(|name| Hook::syscall("fl_sys_both", format!("sys_exit_{name}"))).collect(),
    }
}
