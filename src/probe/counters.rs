//! The counters of the kernel programs, summed over the processors.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Context, Result};
use libbpf_rs::MapCore;
use libbpf_sys::{
    BPF_LINK_TYPE_KPROBE_MULTI, BPF_LINK_TYPE_PERF_EVENT, BPF_PERF_EVENT_KPROBE, BPF_PERF_EVENT_KRETPROBE,
    bpf_link_get_info_by_fd, bpf_link_info,
};

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

/// How often a kprobe or a kretprobe was hit and did not run its program, because another kprobe was running on that processor: in an
/// interrupt of a program at a kprobe. A program's [`recursion_misses`] don't have these. The kernel counts them from v6.7 on; 0 before,
/// and for links of other kinds.
pub(super) fn hits_missed(link: BorrowedFd<'_>) -> u64 {
    let mut info = bpf_link_info::default();
    let mut length = size_of::<bpf_link_info>() as u32;
    // SAFETY: the kernel writes at most `length` bytes to `info`.
    let asked = unsafe { bpf_link_get_info_by_fd(link.as_raw_fd(), &raw mut info, &raw mut length) };
    if asked != 0 {
        return 0;
    }
    // SAFETY: the kernel has filled in the part that belongs to the type of the link, or left it zero: all are numbers.
    unsafe {
        match info.type_ {
            BPF_LINK_TYPE_KPROBE_MULTI => info.__bindgen_anon_1.kprobe_multi.missed,
            BPF_LINK_TYPE_PERF_EVENT => match info.__bindgen_anon_1.perf_event.type_ {
                BPF_PERF_EVENT_KPROBE | BPF_PERF_EVENT_KRETPROBE => {
                    info.__bindgen_anon_1.perf_event.__bindgen_anon_1.kprobe.missed
                }
                _ => 0,
            },
            _ => 0,
        }
    }
}
