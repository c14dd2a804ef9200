//! Tries the ways to hook the kernel, one by one: the kernel itself answers, not a guess from its version.

use anyhow::{Context as _, Result};
use libbpf_rs::{MapType, ObjectBuilder, ProgramType};

use super::load;
use super::object::{Build, Builds, Opened, object};
use crate::host::Answer;

const OBJECT: Builds = object!("doctor");

/// A way to hook the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
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

const PROGRAMS: [(Hook, &str); 5] = [
    (Hook::RawTracepoint, "fl_try_raw_tp"),
    (Hook::TracepointBtf, "fl_try_tp_btf"),
    (Hook::Kprobe, "fl_try_kprobe"),
    (Hook::Fentry, "fl_try_fentry"),
    (Hook::TypedLoad, "fl_try_typed"),
];

/// Loads a small program of this kind, attaches it, and detaches it again.
pub fn try_hook(hook: Hook) -> Answer {
    load::prepare(false);
    let attempt = if hook == Hook::TypedLoad { try_typed_load() } else { try_plain(hook) };
    match attempt {
        Ok(()) => Answer::Yes,
        Err(error) => Answer::No(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// Without the kernel's types: not every kernel shows them, and only one hook needs them.
fn try_plain(hook: Hook) -> Result<()> {
    let mut open = ObjectBuilder::default().open_memory(OBJECT.plain)?;
    for mut program in open.progs_mut() {
        let keep = PROGRAMS.contains(&(hook, program.name().to_str().unwrap_or_default()));
        program.set_autoload(keep);
    }
    let object = open.load()?;
    let program =
        object.progs_mut().find(|program| PROGRAMS.contains(&(hook, program.name().to_str().unwrap_or_default())));
    let program = program.context("failed to find the program to try")?;
    match hook {
        Hook::RawTracepoint | Hook::TypedLoad => program.attach_raw_tracepoint("signal_deliver").map(drop)?,
        Hook::Kprobe => program.attach_kprobe(false, "force_sig_info_to_task").map(drop)?,
        Hook::TracepointBtf | Hook::Fentry => program.attach().map(drop)?,
    }
    Ok(())
}

fn try_typed_load() -> Result<()> {
    let mut open = Opened::open(OBJECT, Build::Typed, None)?;
    open.autoload(|program| program == "fl_try_typed");
    open.load()?.program("fl_try_typed")?.attach_raw_tracepoint("signal_deliver").map(drop)?;
    Ok(())
}

/// Does the kernel have ring buffers?
pub fn has_ring_buffer() -> Answer {
    answer(MapType::RingBuf.is_supported())
}

/// The helpers that a crash record needs, by their number in include/uapi/linux/bpf.h, and one that it can do without.
pub const HELPERS: [(&str, u32); 9] = [
    ("bpf_get_current_task", 35),
    ("bpf_current_task_under_cgroup", 37),
    ("bpf_probe_read_user", 112),
    ("bpf_probe_read_kernel", 113),
    ("bpf_probe_read_kernel_str", 115),
    ("bpf_ktime_get_boot_ns", 125),
    ("bpf_ringbuf_output", 130),
    ("bpf_ringbuf_query", 134),
    ("bpf_task_pt_regs", 175),
];

/// May a raw tracepoint's program call this helper?
pub fn has_helper(number: u32) -> Answer {
    answer(ProgramType::RawTracepoint.is_helper_supported(number))
}

fn answer(result: libbpf_rs::Result<bool>) -> Answer {
    match result {
        Ok(true) => Answer::Yes,
        Ok(false) => Answer::No("the kernel doesn't have it".to_owned()),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}
