//! The counters of the kernel programs, summed over the processors.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use libbpf_rs::MapCore;

use super::programs;
use super::table::TypedTable as _;

/// One counter of the map `fl_counters`, summed over the processors.
pub(super) fn sum(map: &impl MapCore, which: u32) -> Result<u64> {
    Ok(map.values::<u64>(&which).with_context(|| format!("failed to read counter {which}"))?.iter().sum())
}

/// The number of a loaded program in the kernel, and how many of its runs the kernel skipped because the program was on that processor
/// already: interrupted, or preempted if programs at tracepoints can be (v7.0). The kernel counts them for fentry from v5.12 on, for raw
/// tracepoints from v6.1 on (older kernels skip none), for kprobes and tracepoints from v6.7 on; 0 before. `None` means that the kernel
/// doesn't report it. It is asked by the descriptor, because to go through all programs needs CAP_SYS_ADMIN.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> Option<(u32, u64)> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    programs::ask(program, &mut info).ok()?;
    Some((info.id, info.recursion_misses))
}
