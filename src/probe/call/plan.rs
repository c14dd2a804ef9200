//! The plan of the recorder.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::attach;
use crate::probe::Setup;
use crate::probe::abi::call::{fl_condition, fl_fetch, fl_function, fl_function_flag, fl_own_limit};

/// One way to see a function: its name there, and what to read of a call.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// The kernel's symbol: `do_truncate`, or that of a system call's wrapper; for a tracepoint the system call's name, `munmap`.
    pub symbol: String,
    /// The id of the function in the kernel's BTF, or in the program's, which fentry needs; of a tracepoint that of its type.
    pub btf_id: Option<u32>,
    /// Parameters that the function has (of the symbol, so 1 for a system call's wrapper), 6 at most that are read.
    pub parameters: u8,
    /// enum fl_function_flag.
    pub flags: u32,
    /// With FL_FUNCTION_ANYONE: only if this argument has one of these bits; `None` means always.
    pub anyone: Option<(u8, u64)>,
    /// The values to read, in order.
    pub fetches: Vec<fl_fetch>,
    /// Why it must not be tried.
    pub forbidden: Option<&'static str>,
    /// The BPF program whose main function it is; `None` means that it is one of the kernel's.
    pub program: Option<Arc<OwnedFd>>,
}

impl Point {
    /// Is it a tracepoint, by its types?
    pub(super) fn is_event(&self) -> bool {
        self.flags & fl_function_flag::FL_FUNCTION_EVENT.0 != 0
    }
}

/// One function that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// As a kernel function (fentry, kprobe.multi, kprobe); `None` means that there is no such symbol.
    pub kernel: Option<Point>,
    /// As a system call's pair of tracepoints; `None` means that it is no system call.
    pub syscall: Option<Point>,
    /// A result that is a trigger.
    pub trigger: Option<i64>,
    /// Its beginning is a trigger, if this holds.
    pub begin: Option<fl_condition>,
}

/// The recorder's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which tasks are recorded, and how to attach.
    pub setup: Setup,
    /// Which functions: the index is the function's number.
    pub functions: Vec<Function>,
    /// Calls kept of each task: a power of two, 4 to 64.
    pub calls: u32,
    /// Tasks kept.
    pub tasks: u32,
    /// Keep the kernel's stack of each call, in tables with room for so many each, a power of two; `None` means don't.
    pub kernel_stacks: Option<u32>,
    /// Send calls when they end, at most so many a second.
    pub live: Option<u32>,
    /// Signals whose delivery is a trigger.
    pub trigger_signals: Vec<u32>,
    /// Functions may be added later.
    pub grows: bool,
}

impl Plan {
    /// Refuses a plan that the kernel programs can't carry out.
    pub(super) fn check(&self) -> Result<()> {
        let (least, most) = (fl_own_limit::FL_LIMIT_CALLS_LEAST.0, fl_own_limit::FL_LIMIT_CALLS.0);
        if !self.calls.is_power_of_two() || !(least..=most).contains(&self.calls) {
            bail!("failed to keep {} calls of each task: give a power of two, {least} to {most}", self.calls);
        }
        let (many, most) = (self.functions.len(), fl_own_limit::FL_LIMIT_FUNCTIONS.0 as usize);
        if many > most {
            bail!("failed to watch {many} functions: {most} at most, name fewer or a narrower glob");
        }
        Ok(())
    }

    /// How many functions there may be at last.
    pub(super) fn most(&self) -> usize {
        if self.grows { fl_own_limit::FL_LIMIT_FUNCTIONS.0 as usize } else { self.functions.len() }
    }

    /// The functions as the kernel programs read them: two entries for each, as a kernel function and as a system call.
    pub(super) fn functions(&self) -> Result<Vec<fl_function>> {
        let mut functions = entries(&self.functions)?;
        // A section must not be empty.
        functions.resize((2 * self.most()).max(1), fl_function::default());
        Ok(functions)
    }
    /// Does anything go through the ring?
    pub(super) fn has_samples(&self) -> bool {
        self.live.is_some()
            || self.grows
            || !self.trigger_signals.is_empty()
            || self.functions.iter().any(|function| function.trigger.is_some() || function.begin.is_some())
    }
}

/// Two entries for each function: as a kernel function and as a system call.
pub(super) fn entries(functions: &[Function]) -> Result<Vec<fl_function>> {
    let mut entries = Vec::new();
    for Function { kernel, syscall, trigger, begin } in functions {
        for point in [kernel, syscall] {
            let entry = |point: &Point| entry(point, *trigger, *begin);
            entries.push(point.as_ref().map_or(Ok(fl_function::default()), entry)?);
        }
    }
    Ok(entries)
}

/// A function as the kernel programs read it.
fn entry(point: &Point, trigger: Option<i64>, begin: Option<fl_condition>) -> Result<fl_function> {
    let (anyone_argument, anyone_mask) = point.anyone.map_or((0, 0), |(argument, mask)| (u32::from(argument), mask));
    let trigger_value = trigger.unwrap_or(0);
    let mut entry = fl_function {
        flags: point.flags,
        trigger: trigger_value,
        anyone_mask,
        anyone_argument,
        condition: begin.unwrap_or_default(),
        ..fl_function::default()
    };
    if begin.is_some() {
        entry.flags |= fl_function_flag::FL_FUNCTION_BEGIN.0;
    }
    if trigger.is_some() {
        entry.flags |= fl_function_flag::FL_FUNCTION_TRIGGER.0;
    }
    if point.fetches.iter().any(attach::is_read_at_end) {
        entry.flags |= fl_function_flag::FL_FUNCTION_AT_END.0;
    }
    if point.fetches.len() > entry.fetches.len() {
        bail!("failed to watch `{}`: {} values of a call at most", point.symbol, entry.fetches.len());
    }
    entry.fetch_count = point.fetches.len() as u32;
    for (to, from) in entry.fetches.iter_mut().zip(&point.fetches) {
        *to = *from;
    }
    Ok(entry)
}
