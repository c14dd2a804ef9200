//! Finds the stacks in a record, and puts names into their frames.

use serde::{Deserialize, Serialize};

use super::fields::Fields;
use crate::evidence::Function;
use crate::hex::{Hex, bytes};
use crate::offline::{Naked, Named, Place};

/// The fields that are a stack, or have one in them.
const STACK: &str = "stack_trace";
const WITH_A_STACK: [&str; 2] = ["ended_by", "earlier_fault"];
const THREADS: &str = "threads";
const GROUPS: &str = "groups";
const FRAMES: &str = "frames";

/// Whoever names the frames of a stack.
pub(super) type NameStack<'a> = dyn FnMut(&[Naked]) -> Vec<Named> + 'a;

/// What came of the frames of a record, those of inlined functions not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Frames that have a name, or lines, that they did not have.
    pub(super) named: u64,
    /// Frames without a name that have none yet.
    pub(super) unnamed: u64,
}

/// Where a stack leaves frames out: `omitted`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Omitted {
    count: usize,
    before: usize,
}

/// A file whose names are missing.
#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    module: Option<String>,
    reason: String,
}

/// Names all frames of a record.
///
/// # Errors
/// If it can't be encoded again.
pub(super) fn symbolize(record: &mut Fields, name: &mut NameStack<'_>) -> serde_json::Result<Tally> {
    let mut tally = Tally::default();
    if let Some(frames) = record.get::<Vec<Fields>>(STACK) {
        let before = record.get::<Omitted>("stack_omitted");
        let stack = name_frames(frames, name, before.map(|omitted| omitted.before), &mut tally)?;
        if stack.is_changed {
            if let (Some(omitted), Some(before)) = (before, stack.before) {
                record.set("stack_omitted", &Omitted { before, ..omitted })?;
            }
            set_first(record, &stack.frames)?;
            record.set(STACK, &stack.frames)?;
        }
    }
    for field in WITH_A_STACK {
        let Some(mut part) = record.get::<Fields>(field) else { continue };
        if name_in(&mut part, STACK, name, &mut tally)? {
            record.set(field, &part)?;
        }
    }
    if tally.named > 0 {
        forget_failures(record)?;
    }
    for (field, stack) in [(THREADS, STACK), (GROUPS, FRAMES)] {
        let Some(mut parts) = record.get::<Vec<Fields>>(field) else { continue };
        let mut is_changed = false;
        for part in &mut parts {
            is_changed |= name_in(part, stack, name, &mut tally)?;
        }
        if is_changed {
            record.set(field, &parts)?;
        }
    }
    Ok(tally)
}

fn name_in(part: &mut Fields, field: &str, name: &mut NameStack<'_>, tally: &mut Tally) -> serde_json::Result<bool> {
    let Some(frames) = part.get::<Vec<Fields>>(field) else { return Ok(false) };
    let stack = name_frames(frames, name, None, tally)?;
    if stack.is_changed {
        part.set(field, &stack.frames)?;
    }
    Ok(stack.is_changed)
}

/// The name of the place where the thread was.
fn set_first(record: &mut Fields, frames: &[Fields]) -> serde_json::Result<()> {
    let first = frames.iter().find(|frame| frame.get("inlined") != Some(true));
    let Some(first) = first.filter(|first| first.get::<Hex>("address") == record.get("instruction_pointer")) else {
        return Ok(());
    };
    match first.get::<String>("symbol") {
        Some(symbol) => record.set("instruction_symbol", &symbol),
        None => Ok(()),
    }
}

/// Files whose frames all have names have not failed.
fn forget_failures(record: &mut Fields) -> serde_json::Result<()> {
    let Some(mut failed) = record.get::<Vec<Failed>>("symbols_failed").filter(|failed| !failed.is_empty()) else {
        return Ok(());
    };
    let parts = WITH_A_STACK.iter().filter_map(|field| record.get::<Fields>(field)?.get::<Vec<Fields>>(STACK));
    let frames: Vec<Fields> = record.get::<Vec<Fields>>(STACK).into_iter().chain(parts).flatten().collect();
    failed.retain(|failed| {
        let mut of_it = frames.iter().filter(|frame| frame.get::<String>("module") == failed.module).peekable();
        of_it.peek().is_none() || of_it.any(|frame| frame.get::<String>("symbol").is_none())
    });
    record.set("symbols_failed", &failed)
}

/// A stack whose frames were named.
struct Stack {
    frames: Vec<Fields>,
    is_changed: bool,
    /// The index that a frame has now.
    before: Option<usize>,
}

fn name_frames(
    frames: Vec<Fields>,
    name: &mut NameStack<'_>,
    before: Option<usize>,
    tally: &mut Tally,
) -> serde_json::Result<Stack> {
    // Inlined functions stand before the frame that they are part of.
    let mut calls: Vec<Vec<Fields>> = vec![Vec::new()];
    for frame in frames {
        let is_last = frame.get::<bool>("inlined") != Some(true);
        if let Some(call) = calls.last_mut() {
            call.push(frame);
        }
        if is_last {
            calls.push(Vec::new());
        }
    }
    calls.retain(|call| !call.is_empty());
    let naked: Vec<Naked> = calls.iter().map(|call| naked(call)).collect();
    let named = name(&naked);
    let mut stack = Stack { frames: Vec::new(), is_changed: false, before };
    let mut index = 0;
    for ((call, naked), named) in calls.into_iter().zip(&naked).zip(named) {
        if before == Some(index) {
            stack.before = Some(stack.frames.len());
        }
        index += call.len();
        match named {
            Some(functions) => {
                tally.named += 1;
                stack.is_changed = true;
                stack.frames.extend(with_names(call, &functions)?);
            }
            None => {
                tally.unnamed += u64::from(naked.symbol.is_none());
                stack.frames.extend(call);
            }
        }
    }
    if before.is_some_and(|before| before >= index) {
        stack.before = Some(stack.frames.len());
    }
    Ok(stack)
}

/// A frame and what is inlined into it, as whoever names it wants to know it.
fn naked(call: &[Fields]) -> Naked {
    let Some(frame) = call.last() else { return Naked::default() };
    let place = || {
        let text: String = frame.get("build_id")?;
        let module: Option<String> = frame.get("module");
        let module = module.map(|module| module.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(module));
        let offset = frame.get::<Hex>("offset")?.0;
        Some(Place { build_id: bytes(&text)?, module, offset, is_return_address: false })
    };
    // An interpreter's frames have names of their own.
    let is_native = frame.get::<String>("language").is_none();
    Naked {
        place: place().filter(|_| is_native),
        symbol: frame.get("symbol"),
        has_line: call.iter().any(|frame| frame.get::<u32>("line").is_some()),
    }
}

/// The frame of each function, in place of these.
fn with_names(mut call: Vec<Fields>, functions: &[Function]) -> serde_json::Result<Vec<Fields>> {
    let Some(frame) = call.pop() else { return Ok(Vec::new()) };
    let named = |function: &Function| {
        let mut frame = frame.clone();
        frame.set("symbol", &function.symbol())?;
        frame.set("file", &function.file)?;
        frame.set("line", &function.line)?;
        frame.set("inlined", &function.inlined)?;
        Ok(frame)
    };
    functions.iter().map(named).collect()
}

#[cfg(test)]
mod tests;
