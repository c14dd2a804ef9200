//! The records of page faults. Fields as in docs/output.md.

use std::collections::BTreeMap;

use serde::Serialize;

use super::crash::{Frame, Vma, page_fault_words};
use super::{Head, Interval};
use crate::hex::Hex;
use crate::probe::Way;
use crate::probe::abi::pagefault::fl_vma_class;

/// The faults of one interval.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The interval and the run.
    #[serde(flatten)]
    pub interval: Interval,
    /// How the faults were seen: `tracepoint`, `kprobe`, `perf`.
    pub attach: &'static str,
    /// What they are counted by, besides process, mode and error code.
    pub by: &'static str,
    /// Most frequent first.
    pub groups: Vec<FaultGroup>,
    /// Groups that `--top` leaves out.
    pub omitted: Omitted,
    /// What there was in this interval.
    pub faults: Faults,
    /// Faults in no group, by reason: `faults.matched` is the sum of these, of `omitted.count` and of all `groups[].count`.
    pub losses: BTreeMap<&'static str, u64>,
    /// Details that are missing, by reason. The faults are counted.
    pub sample_losses: BTreeMap<&'static str, u64>,
}

/// The groups that are not in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Omitted {
    /// So many groups.
    pub groups: usize,
    /// Their faults in this interval.
    pub count: u64,
    /// Their faults since the start.
    pub total: u64,
}

/// Page faults in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    /// Page faults of watched processes.
    pub matched: u64,
    /// Those that the filters left out.
    pub filtered: u64,
    /// Major ones of watched processes; `None` means that this kernel doesn't report them.
    pub major: Option<u64>,
}

/// The kind of a fault, as far as the hook shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FaultKind {
    /// `user`, `kernel`
    pub mode: &'static str,
    /// `read`, `write`, `execute`
    pub access: Option<&'static str>,
    /// `not_present`, `protection`
    pub cause: Option<&'static str>,
    /// The processor's number.
    pub error_code: Option<u32>,
    /// Its bits by name.
    pub flags: Option<Vec<&'static str>>,
    /// The kind of memory at the address; `None` means not asked for.
    pub vma: Option<&'static str>,
}

impl FaultKind {
    /// The kind of a fault from these numbers of a probe with this hook.
    pub(crate) fn new(way: Way, mode: u8, error_code: u32, vma_class: u8) -> Self {
        let (access, flags) = page_fault_words(u64::from(error_code));
        let protection = flags.contains(&"protection");
        let whole = way == Way::Tracepoint;
        Self {
            mode: if mode == 0 { "user" } else { "kernel" },
            access: (way != Way::Perf).then_some(access),
            cause: whole.then_some(if protection { "protection" } else { "not_present" }),
            error_code: whole.then_some(error_code),
            flags: whole.then_some(flags),
            vma: class_name(fl_vma_class(u32::from(vma_class))),
        }
    }

    /// The bits that are not in `mode`, `access` and `cause`.
    pub(crate) fn other_flags(&self) -> impl Iterator<Item = &'static str> {
        let known = ["protection", "write", "user", "instruction"];
        self.flags.iter().flatten().copied().filter(move |flag| !known.contains(flag))
    }
}

/// A class by name; `None` means not asked for.
fn class_name(class: fl_vma_class) -> Option<&'static str> {
    match class {
        fl_vma_class::FL_VMA_NONE => Some("none"),
        fl_vma_class::FL_VMA_ANONYMOUS => Some("anonymous"),
        fl_vma_class::FL_VMA_FILE => Some("file"),
        fl_vma_class::FL_VMA_STACK => Some("stack"),
        fl_vma_class::FL_VMA_HEAP => Some("heap"),
        fl_vma_class::FL_VMA_SHARED => Some("shared_memory"),
        fl_vma_class::FL_VMA_VDSO => Some("vdso"),
        _ => None,
    }
}

/// Faults that are the same.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FaultGroup {
    /// The process as the host numbers it; `None` means several of one name that have ended.
    pub pid: Option<u32>,
    /// The process's name.
    pub comm: Option<String>,
    /// What they are.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Faults in this interval.
    pub count: u64,
    /// Since `since`.
    pub total: u64,
    /// Major ones in this interval; `None` means that this kernel doesn't report them.
    pub major: Option<u64>,
    /// Major ones since `since`.
    pub major_total: Option<u64>,
    /// With `--by address`: the page's.
    pub address: Option<Hex>,
    /// With `--by instruction`.
    pub instruction_pointer: Option<Hex>,
    /// The function, and the place in it.
    pub instruction_symbol: Option<String>,
    /// The file that the instruction is in.
    pub instruction_module: Option<String>,
    /// With `--by vma`.
    pub mapping: Option<Vma>,
    /// With `--by file`.
    pub file: Option<FileRecord>,
    /// With `--stacks`: innermost frame first.
    pub stack_trace: Option<Vec<Frame>>,
}

/// A file that is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileRecord {
    /// As the process sees it; `None` means not known.
    pub path: Option<String>,
    /// `major:minor`
    pub device: String,
    /// Its number.
    pub inode: u64,
}

/// One page fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FaultRecord {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The process as the host numbers it.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The process's name.
    pub comm: String,
    /// The thread's.
    pub thread_name: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// What could not be accessed.
    pub address: Hex,
    /// The address of the thread's instruction; with `--stacks` and in kernel mode, the one in user mode.
    pub instruction_pointer: Hex,
    /// The function, and the place in it.
    pub instruction_symbol: Option<String>,
    /// With `--stacks`: innermost frame first.
    pub stack_trace: Option<Vec<Frame>>,
    /// Where it happened.
    pub cpu: u32,
}
