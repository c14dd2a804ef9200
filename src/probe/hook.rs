//! The ways to hook the kernel, and the hooks of a way.

use libbpf_rs::libbpf_sys::{PERF_COUNT_SW_PAGE_FAULTS, PERF_COUNT_SW_PAGE_FAULTS_MAJ};
use serde::{Deserialize, Serialize};

use super::losses::{FORKS_MISSED, RUNS_MISSED};

/// A way to hook the kernel. Each probe has its own hooks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The tracepoints that the probe is made for.
    Tracepoint,
    /// The tracepoints of all system calls, in place of those of single calls.
    Raw,
    /// The entries of system calls: they show the arguments, and nothing that the kernel does by itself.
    Syscall,
    /// Kprobes, and kretprobes.
    Kprobe,
    /// One kprobe.multi and kretprobe.multi for many functions.
    KprobeMulti,
    /// fentry and fexit.
    Fentry,
    /// The perf software event.
    Perf,
    /// A tracepoint by its types.
    TpBtf,
}

impl Way {
    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Raw => "raw",
            Self::Syscall => "syscall",
            Self::Kprobe => "kprobe",
            Self::KprobeMulti => "kprobe-multi",
            Self::Fentry => "fentry",
            Self::Perf => "perf",
            Self::TpBtf => "tp-btf",
        }
    }
}

/// The options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The best way that works.
    #[default]
    Auto,
    /// This way, and no other.
    By(Way),
}

/// A place at which a program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HookPoint {
    /// A raw tracepoint.
    Raw(&'static str),
    /// The entry of a kernel function.
    Function(String),
    /// The end of a kernel function.
    Return(String),
    /// A tracepoint of one system call, as `sys_enter_mmap`; nothing if the kernel has no such call.
    Syscall(String),
    /// A perf software event, `PERF_COUNT_SW_*`, and its name.
    Software(u32, &'static str),
    /// None yet: the probe attaches the program while it needs it.
    Later,
}

/// A program and the place at which it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(super) program: &'static str,
    pub(super) point: HookPoint,
    /// It is named in the line that says what is watched.
    pub(super) is_shown: bool,
    /// The loss that a skipped run counts as; `None` means that it is made up for. A program has one, that of its first hook.
    pub(super) missed: Option<&'static str>,
    /// Its program takes its arguments with their types where the build reads by that (`bpf/include/load.bpf.h`).
    pub(super) is_typed: bool,
    /// Its program is loaded apart from the others and shares with them all tables but those of `FL_SCRATCH`: it runs while they are
    /// preempted on the same processor.
    pub(super) is_apart: bool,
}

impl At {
    /// The tracepoint whose arguments the program takes with their types.
    pub(super) fn typed_tracepoint(&self) -> Option<&'static str> {
        match self.point {
            HookPoint::Raw(name) if self.is_typed => Some(name),
            _ => None,
        }
    }

    /// Its name in the line that says what is watched.
    pub(super) fn words(&self) -> String {
        match &self.point {
            HookPoint::Raw(name) => format!("raw_tp/{name}"),
            HookPoint::Function(name) | HookPoint::Return(name) => format!("kprobe/{name}"),
            HookPoint::Syscall(name) => format!("tp/{name}"),
            HookPoint::Software(_, name) => format!("perf/{name}"),
            HookPoint::Later => self.program.to_owned(),
        }
    }
}

/// One part of a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// One program at one point.
    At(At),
    /// The first of these lists that can be attached. An empty list at the end means that nothing that was asked for is missing without
    /// the others.
    FirstOf(Vec<Vec<Hook>>),
}

impl Hook {
    fn at(program: &'static str, point: HookPoint) -> Self {
        Self::At(At { program, point, is_shown: false, missed: Some(RUNS_MISSED), is_typed: false, is_apart: false })
    }

    /// At a raw tracepoint.
    pub(super) fn raw(program: &'static str, tracepoint: &'static str) -> Self {
        Self::at(program, HookPoint::Raw(tracepoint))
    }

    /// At the entry of a kernel function.
    pub(super) fn kprobe(program: &'static str, function: impl Into<String>) -> Self {
        Self::at(program, HookPoint::Function(function.into()))
    }

    /// At the end of a kernel function.
    pub(super) fn kretprobe(program: &'static str, function: impl Into<String>) -> Self {
        Self::at(program, HookPoint::Return(function.into()))
    }

    /// At a tracepoint of one system call.
    pub(super) fn syscall(program: &'static str, name: String) -> Self {
        Self::at(program, HookPoint::Syscall(name))
    }

    /// At every page fault, as perf counts them. The kernel counts no skipped run of a perf event's program: the probe does.
    pub(super) fn page_faults(program: &'static str) -> Self {
        Self::at(program, HookPoint::Software(PERF_COUNT_SW_PAGE_FAULTS, "page-faults")).missed_as(None)
    }

    /// At every major page fault; the same.
    pub(super) fn major_faults(program: &'static str) -> Self {
        Self::at(program, HookPoint::Software(PERF_COUNT_SW_PAGE_FAULTS_MAJ, "major-faults")).missed_as(None)
    }

    /// Loaded, and attached by the probe itself.
    pub(super) fn later(program: &'static str) -> Self {
        Self::at(program, HookPoint::Later)
    }

    /// One function that has another name on some kernels.
    pub(super) fn kprobe_by_either(program: &'static str, names: [&str; 2]) -> Self {
        Self::FirstOf(names.map(|name| vec![Self::kprobe(program, name).shown()]).to_vec())
    }

    /// The fork and the exit of tasks, which are only followed. The exit first: a process must not be remembered and never forgotten.
    /// A skipped run is almost always made up for (bpf/include/filter.bpf.h), and so has a loss of its own.
    pub(super) fn follow() -> [Self; 2] {
        [
            Self::raw("fl_exit", "sched_process_exit").missed_as(None),
            Self::raw("fl_fork", "sched_process_fork").missed_as(Some(FORKS_MISSED)),
        ]
    }

    fn map(self, change: &impl Fn(At) -> At) -> Self {
        match self {
            Self::At(at) => Self::At(change(at)),
            Self::FirstOf(lists) => {
                let list = |hooks: Vec<Self>| hooks.into_iter().map(|hook| hook.map(change)).collect();
                Self::FirstOf(lists.into_iter().map(list).collect())
            }
        }
    }

    /// The same, named in the line that says what is watched.
    pub(super) fn shown(self) -> Self {
        self.map(&|at| At { is_shown: true, ..at })
    }

    /// The same, at a raw tracepoint; its program reads its arguments by their types.
    pub(super) fn typed(self) -> Self {
        self.map(&|at| At { is_typed: true, ..at })
    }

    /// The same; a run that the kernel skips counts as this loss.
    pub(super) fn missed_as(self, missed: Option<&'static str>) -> Self {
        self.map(&|at| At { missed, ..at })
    }

    /// The same, its program loaded apart from the others if `is_apart`.
    pub(super) fn apart_if(self, is_apart: bool) -> Self {
        self.map(&|at| At { is_apart, ..at })
    }

    /// The same; nothing is missing without it.
    pub(super) fn optional(self) -> Self {
        Self::FirstOf(vec![vec![self], Vec::new()])
    }

    /// The programs of these hooks: those that are loaded together, and those that are loaded apart.
    pub(super) fn programs(hooks: &[Self]) -> (Vec<&'static str>, Vec<&'static str>) {
        let (apart, together): (Vec<&At>, Vec<&At>) = Self::all(hooks).into_iter().partition(|at| at.is_apart);
        let names = |all: Vec<&At>| all.into_iter().map(|at| at.program).collect();
        (names(together), names(apart))
    }

    /// All programs and points of these hooks, whether or not they are attached in the end.
    pub(super) fn all(hooks: &[Self]) -> Vec<&At> {
        let mut all = Vec::new();
        for hook in hooks {
            match hook {
                Self::At(at) => all.push(at),
                Self::FirstOf(lists) => all.extend(lists.iter().flat_map(|list| Self::all(list))),
            }
        }
        all
    }
}
