//! The recorder of kernel calls: `bpf/call.bpf.c` opened, loaded, and attached to each function in the best way there is.

use std::path::PathBuf;

use super::Filter;
use super::abi::call::{fl_call, fl_event, fl_fetch, fl_task};

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// For each function the best that works.
    #[default]
    Auto,
    /// fentry and fexit only.
    Fentry,
    /// One kprobe.multi for all.
    KprobeMulti,
    /// A kprobe and a kretprobe for each.
    Kprobe,
    /// The tracepoints of system calls.
    Tracepoint,
}

/// How a function was attached in fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// fentry and fexit.
    Fentry,
    /// kprobe.multi and kretprobe.multi.
    KprobeMulti,
    /// kprobe and kretprobe.
    Kprobe,
    /// sys_enter_NAME and sys_exit_NAME.
    Tracepoint,
}

/// One way to see a function: what it is called there, and what to read of a call.
#[derive(Clone, Debug)]
pub struct Point {
    /// The kernel's symbol, `__x64_sys_munmap`, `do_truncate`; for a tracepoint the system call's name, `munmap`.
    pub symbol: String,
    /// The id of the function in the kernel's BTF, which fentry needs.
    pub btf_id: Option<u32>,
    /// Parameters that the function has (of the symbol, so 1 for a system call's wrapper), 6 at most that are read.
    pub parameters: u8,
    /// enum fl_function_flag.
    pub flags: u32,
    /// With FL_FUNCTION_ANYONE: only where this argument has one of these bits; None: always.
    pub anyone: Option<(u8, u64)>,
    /// What to read, in order.
    pub fetches: Vec<fl_fetch>,
}

/// One function that was asked for.
#[derive(Clone, Debug)]
pub struct Function {
    /// As a kernel function (fentry, kprobe.multi, kprobe); None: there is no such symbol.
    pub kernel: Option<Point>,
    /// As a system call's pair of tracepoints; None: it is no system call.
    pub syscall: Option<Point>,
    /// Returning this is a trigger.
    pub trigger: Option<i64>,
}

/// What the recorder is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which tasks are recorded.
    pub filter: Filter,
    /// Which functions: the place is the number.
    pub functions: Vec<Function>,
    /// Calls kept of each task: a power of two, 4 to 64.
    pub calls: u32,
    /// Tasks kept.
    pub tasks: u32,
    /// Keep the kernel's stack of each call.
    pub kernel_stacks: bool,
    /// Hand on calls as they end, at most so many a second.
    pub live: Option<u32>,
    /// Signals whose delivery is a trigger.
    pub trigger_signals: Vec<u32>,
    /// How to attach.
    pub attach: Attach,
    /// The kernel's types, where it doesn't show them itself.
    pub btf: Option<PathBuf>,
    /// Print libbpf's own messages.
    pub verbose: bool,
}

/// What became of one function: in the order of [`Plan::functions`].
#[derive(Clone, Debug)]
pub struct Attached {
    /// How; None: not at all.
    pub how: Option<How>,
    /// What was tried before, or in vain, and why it failed.
    pub failures: Vec<(How, String)>,
}

/// A task's last calls, oldest first.
#[derive(Clone, Debug)]
pub struct Task {
    /// Whose.
    pub header: fl_task,
    /// Those that are still there.
    pub calls: Vec<fl_call>,
}

/// What the ring brings.
#[derive(Clone, Debug)]
pub enum Sample {
    /// Something asked for the calls of a task.
    Trigger(fl_event, Task),
    /// A call has ended: `--live`.
    Live(fl_event, Box<fl_call>),
}
