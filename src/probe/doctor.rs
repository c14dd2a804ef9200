//! Tries the ways to hook the kernel, one by one: the kernel itself answers, not a guess from its version.

use anyhow::{Context as _, Result};
use libbpf_rs::{MapType, ObjectBuilder, ProgramMut, ProgramType, libbpf_sys};

use super::load;
use super::object::{Build, Builds, Opened, object};
use crate::host::Answer;

const OBJECT: Builds = object!("doctor");

/// A way to hook the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookKind {
    /// A raw tracepoint.
    RawTracepoint,
    /// A tracepoint with typed arguments.
    TracepointBtf,
    /// A kprobe.
    Kprobe,
    /// A function's entry through a trampoline.
    Fentry,
    /// A raw tracepoint's program that reads kernel memory by a typed load: bpf/include/load.bpf.h.
    TypedLoad,
}

impl HookKind {
    /// The program of `bpf/doctor.bpf.c` that tries it.
    fn program(self) -> &'static str {
        match self {
            Self::RawTracepoint => "fl_try_raw_tp",
            Self::TracepointBtf => "fl_try_tp_btf",
            Self::Kprobe => "fl_try_kprobe",
            Self::Fentry => "fl_try_fentry",
            Self::TypedLoad => "fl_try_typed",
        }
    }

    fn attach(self, program: &ProgramMut<'_>) -> libbpf_rs::Result<()> {
        match self {
            Self::RawTracepoint | Self::TypedLoad => program.attach_raw_tracepoint("signal_deliver").map(drop),
            Self::Kprobe => program.attach_kprobe(false, "force_sig_info_to_task").map(drop),
            Self::TracepointBtf | Self::Fentry => program.attach().map(drop),
        }
    }
}

/// Loads a small program of this kind, attaches it, and detaches it again.
pub(crate) fn try_hook(hook: HookKind) -> Answer {
    load::prepare(false);
    let attempt = if hook == HookKind::TypedLoad { try_typed_load() } else { try_plain(hook) };
    match attempt {
        Ok(()) => Answer::Yes,
        Err(error) => Answer::No(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// Without the kernel's types: not every kernel shows them, and only one hook needs them.
fn try_plain(hook: HookKind) -> Result<()> {
    let mut open = ObjectBuilder::default().open_memory(&OBJECT.unpack(Build::Plain)?)?;
    for mut program in open.progs_mut() {
        let is_wanted = program.name() == hook.program();
        program.set_autoload(is_wanted);
    }
    let object = open.load()?;
    let program = object.progs_mut().find(|program| program.name() == hook.program());
    Ok(hook.attach(&program.context("failed to find the program to try")?)?)
}

fn try_typed_load() -> Result<()> {
    let (hook, mut open) = (HookKind::TypedLoad, Opened::open(OBJECT, Build::Typed, None)?);
    open.autoload(|program| program == hook.program());
    Ok(hook.attach(&open.load()?.program(hook.program())?)?)
}

/// Does the kernel have ring buffers?
pub(crate) fn has_ring_buffer() -> Answer {
    answer(MapType::RingBuf.is_supported())
}

/// The helpers that a crash record needs, and one that it can do without.
pub(crate) const HELPERS: [(&str, u32); 9] = [
    ("bpf_get_current_task", libbpf_sys::BPF_FUNC_get_current_task),
    ("bpf_current_task_under_cgroup", libbpf_sys::BPF_FUNC_current_task_under_cgroup),
    ("bpf_probe_read_user", libbpf_sys::BPF_FUNC_probe_read_user),
    ("bpf_probe_read_kernel", libbpf_sys::BPF_FUNC_probe_read_kernel),
    ("bpf_probe_read_kernel_str", libbpf_sys::BPF_FUNC_probe_read_kernel_str),
    ("bpf_ktime_get_boot_ns", libbpf_sys::BPF_FUNC_ktime_get_boot_ns),
    ("bpf_ringbuf_output", libbpf_sys::BPF_FUNC_ringbuf_output),
    ("bpf_ringbuf_query", libbpf_sys::BPF_FUNC_ringbuf_query),
    ("bpf_task_pt_regs", libbpf_sys::BPF_FUNC_task_pt_regs),
];

/// May a raw tracepoint's program call this helper?
pub(crate) fn has_helper(number: u32) -> Answer {
    answer(ProgramType::RawTracepoint.is_helper_supported(number))
}

fn answer(result: libbpf_rs::Result<bool>) -> Answer {
    match result {
        Ok(true) => Answer::Yes,
        Ok(false) => Answer::No("the kernel doesn't have it".to_owned()),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}
