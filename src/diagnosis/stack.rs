//! Stacks without room.
//!
//! The proof is always two facts that agree: an address just outside of a stack, and a stack pointer that leads there.

use super::instruction::{decoded, faulting_touch, in_brackets};
use super::words::{self, hex, size, verb};
use super::{Diagnosis, Kind, SEGV_ACCERR, SEGV_MAPERR, certain, likely, sure};
use crate::arch::syscall::{COMPAT_FATAL_IF_FAILED, FATAL_IF_FAILED};
use crate::arch::{self, REACH_BELOW_STACK_POINTER};
use crate::evidence::{Backing, Evidence, Region, SIGNAL_FRAME_BYTES};
use crate::page;

/// The largest frame that is believed: farther away it may be any broken pointer.
const FRAME_MAX: u64 = 16 << 20;
/// How many pages the kernel keeps free below a growing stack: stack_guard_gap.
const GAP_PAGES: u64 = 256;
/// So often must a function stand in the trace to be called the recursion.
const RECURSION: usize = 3;

/// From this size on a frame is said to be large.
const LARGE: u64 = 64 << 10;
/// Up to this size it is a frame without a doubt, and up to the next one most likely: a broken stack pointer leads anywhere.
const BELIEVED: u64 = 64 << 20;
const LARGEST: u64 = 1 << 30;

/// The instruction accesses the stack where none can be: near 0, or among the kernel's addresses.
pub(super) fn broken_pointer(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    let touch = faulting_touch(facts).filter(|touch| touch.is_on_stack && touch.index.is_none())?;
    let base = touch.base.as_ref()?.value;
    let is_none = !(arch::LEAST_ADDRESS..arch::KERNEL_ADDRESS).contains(&base);
    let why = format!("{} the stack at {}, where none can be", verb(facts), hex(address));
    (is_none && facts.memory.at.is_none()).then(|| {
        let text = format!("{why}: the stack pointer is broken{}", in_brackets(&touch));
        certain(Kind::BrokenStackPointer, text)
    })?
}

/// An access at `address` that the stack pointer explains.
pub(super) fn overflow(facts: &Evidence, address: u64, code: i32) -> Option<Diagnosis> {
    // What it takes lay there: the stack is gone, and not used up.
    if decoded(facts).is_some_and(|instruction| instruction.takes_from_stack()) {
        return None;
    }
    if let Some(found) = large_frame(facts, address) {
        return Some(found);
    }
    let sp = arch::stack_pointer(facts.registers.as_ref()?);
    let leads_there =
        address.saturating_add(REACH_BELOW_STACK_POINTER) >= sp && address.saturating_sub(sp) <= FRAME_MAX;
    if !leads_there {
        return None;
    }
    match &facts.memory.at {
        None => below_main_stack(facts, address).or_else(|| at_its_begin(facts, address, sp)),
        Some(at) if !at.holds(address) => None,
        Some(beside) if !beside.permissions.write && beside.permissions.read => at_its_begin(facts, address, sp),
        Some(guard) if guard.is_guard() && code == SEGV_ACCERR => in_guard(facts, guard, address, sp),
        Some(stack) if code == SEGV_MAPERR => at_guard_mark(facts, stack, address, sp),
        Some(_) => None,
    }
}

/// In the part of the innermost frame that lies below its stack. The frame's size is proved by call frame information, and where it begins is
/// in a stack; its end may be anywhere, also in another mapping.
fn large_frame(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    let sp = arch::stack_pointer(facts.registers.as_ref()?);
    let bytes = facts.frame_bytes.filter(|&bytes| bytes >= page::size() && bytes <= LARGEST)?;
    let begin = sp.checked_add(bytes)?;
    let stack = facts.stack.above.as_ref().filter(|above| above.permissions.write && !above.permissions.shared)?;
    let is_in_frame = address.saturating_add(REACH_BELOW_STACK_POINTER) >= sp && address < stack.start;
    if !is_in_frame || sp >= stack.start || !(stack.start < begin && begin <= stack.end) {
        return None;
    }
    let is_main = stack.backing == Backing::MainStack;
    if is_main && !facts.thread.is_main() {
        return None;
    }
    // The kernel lets the main thread's stack grow up to its limit.
    let grown = stack.end.saturating_sub(page::start(address));
    let room = match facts.stack_limit {
        Some(limit) if is_main && grown > limit => limit.saturating_sub(stack.end - begin),
        _ if is_main => return None,
        _ => begin - stack.start,
    };
    let whose = if is_main { "of the main thread".to_owned() } else { whose(facts) };
    let frame =
        facts.function(0).map_or_else(|| "its innermost frame".to_owned(), |name| format!("the frame of {name}"));
    let text =
        format!("stack overflow {whose}: {frame} has {}, and {} of the stack were left", size(bytes), size(room));
    match facts.is_frame_sized {
        true => sure(bytes <= BELIEVED, Kind::StackOverflow, text),
        // As alloca() or an array of variable length, or code that has moved it to anywhere.
        false => likely(Kind::StackOverflow, format!("{text}, unless its stack pointer was moved by anything else")),
    }
}

/// What a large frame adds to a sentence.
fn of_large_frame(facts: &Evidence) -> String {
    let name = facts.function(0);
    let bytes = facts.frame_bytes.filter(|bytes| facts.is_frame_sized && (LARGE..=LARGEST).contains(bytes));
    match bytes.zip(name) {
        Some((bytes, name)) => format!("; the frame of {name} has {}", size(bytes)),
        None => String::new(),
    }
}

fn below_main_stack(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    let stack = main_stack_above(facts.memory.above.as_ref(), address)?;
    if !facts.thread.is_main() {
        return None;
    }
    let what = "stack overflow of the main thread: the stack";
    let grown = stack.end.saturating_sub(page::start(address));
    let now = size(stack.end.saturating_sub(stack.start));
    let under = facts
        .memory
        .below
        .as_ref()
        .filter(|below| below.end <= address && address - below.end < GAP_PAGES * page::size());
    let recursion = recursion(facts) + &of_large_frame(facts);
    // From farther away, a broken stack pointer leads there as well as a large frame.
    let is_near = stack.start - address <= page::size();
    match (facts.stack_limit, under) {
        (Some(limit), _) if grown > limit => {
            sure(is_near, Kind::StackOverflow, format!("{what} has grown to its limit ({}){recursion}", size(limit)))
        }
        (_, Some(under)) => likely(
            Kind::StackOverflow,
            format!("{what} has grown to {now}, down to the mapping below it ({}){recursion}", words::region(under)),
        ),
        (limit, None) => sure(
            limit.is_none() && is_near,
            Kind::StackOverflow,
            format!("{what} of {now} cannot grow any further{recursion}"),
        ),
    }
}

/// The main thread's stack, if `address` is right below it.
fn main_stack_above(above: Option<&Region>, address: u64) -> Option<&Region> {
    above.filter(|above| {
        above.backing == Backing::MainStack && address < above.start && above.start - address <= FRAME_MAX
    })
}

/// Below a stack without a guard, which the program has made: there is a hole, or memory that may not be written. That the mapping above is a stack,
/// the frames in it prove: a stack pointer that was put to the wrong end of its memory has none.
fn at_its_begin(facts: &Evidence, address: u64, sp: u64) -> Option<Diagnosis> {
    let begin = sp.checked_add(facts.frame_bytes?)?;
    // Of memory that may be read the kernel program sends no neighbours.
    let beside = facts.memory.at.as_ref().filter(|at| at.holds(sp));
    let stack = facts.stack.at.as_ref().filter(|_| beside.is_none()).or(facts.stack.above.as_ref());
    let (start, end) = match (stack, beside) {
        (Some(stack), _) => (stack.start, stack.end),
        (None, Some(beside)) => (beside.end, u64::MAX),
        (None, None) => return None,
    };
    let is_stacks = stack.is_none_or(|stack| {
        stack.permissions.write && !stack.permissions.shared && stack.backing != Backing::MainStack
    });
    let is_at_begin = address < start && start - address <= page::size() && start < begin && begin <= end;
    if !is_stacks || !is_at_begin || !is_walked(facts) || sp.saturating_sub(start) > REACH_BELOW_STACK_POINTER {
        return None;
    }
    let below = match &facts.memory.at {
        None => "nothing is mapped".to_owned(),
        Some(at) => format!("there is memory that may not be written ({})", words::region(at)),
    };
    likely(
        Kind::StackOverflow,
        sentence(facts, &format!("it has reached the begin of its mapping, and below that {below}")),
    )
}

/// Do frames lead up from the innermost one? A stack pointer that was put somewhere has none there.
fn is_walked(facts: &Evidence) -> bool {
    facts.frames.len() > RECURSION && (facts.is_unwindable || !recursion(facts).is_empty())
}

/// In the guard page of a stack that the program or its thread library made.
fn in_guard(facts: &Evidence, guard: &Region, address: u64, sp: u64) -> Option<Diagnosis> {
    let adjacent = |mapping: &&Region| mapping.start == guard.end && mapping.permissions.write;
    let above = facts.memory.above.as_ref().or(facts.stack.at.as_ref()).filter(adjacent);
    let begin = facts.frame_bytes.and_then(|bytes| sp.checked_add(bytes));
    let is_used =
        is_walked(facts) && above.zip(begin).is_some_and(|(above, begin)| above.start < begin && begin <= above.end);
    let is_known = above.is_some();
    if guard.end - address > FRAME_MAX {
        return None;
    }
    let text = || sentence(facts, "it has reached its guard page");
    match guard.holds(sp) || sp >= guard.end {
        true if is_known && is_used => certain(Kind::StackOverflow, text()),
        // The mapping above is unknown, but the stack pointer is in memory without permissions.
        true if is_known || guard.holds(sp) => likely(
            Kind::StackOverflow,
            format!("{}, unless its stack pointer was set to the wrong end of its memory{}", text(), or_closed(facts)),
        ),
        // A frame that is larger than the guard. In a mapping below it the stack pointer may be valid.
        false if is_known && facts.stack.is_hole() => likely(Kind::StackOverflow, text()),
        _ => None,
    }
}

/// A mapping without permissions that has had pages of its own may be a stack that was in use.
fn or_closed(facts: &Evidence) -> &'static str {
    if facts.past.has_own_pages { ", or the stack was closed (mprotect)" } else { "" }
}

/// From Linux 6.13 on a guard may be a mark on pages of the stack's own mapping (MADV_GUARD_INSTALL, as glibc 2.42): the
/// mapping allows the access, and yet the kernel says that nothing is mapped.
fn at_guard_mark(facts: &Evidence, stack: &Region, address: u64, sp: u64) -> Option<Diagnosis> {
    let is_stack = stack.backing == Backing::Anonymous
        && stack.permissions.read
        && stack.permissions.write
        && !stack.permissions.shared;
    // Mappings of neighbouring stacks are merged: from farther away it may be the next one's guard.
    let is_near = address.saturating_sub(sp) < page::size();
    (is_stack && is_near && stack.holds(sp) && !facts.is_present())
        .then(|| likely(Kind::StackOverflow, sentence(facts, "it has reached its guard page")))?
}

/// The kernel could not write a signal's frame (SI_KERNEL, no address): the stack pointer is at a stack's end.
pub(super) fn signal_frame(facts: &Evidence) -> Option<Diagnosis> {
    // Some calls end so, too: a return from a handler whose frame can't be read.
    let may_be_its =
        |call| FATAL_IF_FAILED.contains(&call) || (facts.is_compat && COMPAT_FATAL_IF_FAILED.contains(&call));
    if facts.fault_address.is_some() || facts.entry_call.is_some_and(may_be_its) {
        return None;
    }
    let sp = arch::stack_pointer(facts.registers.as_ref()?);
    let place = &facts.stack;
    let no_room = "no room is left even for a signal handler's frame";
    let lowest = sp.saturating_sub(SIGNAL_FRAME_BYTES);
    let is_over = |stack: &Region| {
        let grown = stack.end.saturating_sub(page::start(lowest));
        facts.stack_limit.is_some_and(|limit| grown > limit)
    };
    if place.at.as_ref().is_some_and(|at| !at.holds(sp)) {
        return None;
    }
    let of_main = match &place.at {
        None => main_stack_above(place.above.as_ref(), sp).is_some(),
        Some(at) => at.backing == Backing::MainStack && sp - at.start <= SIGNAL_FRAME_BYTES && is_over(at),
    };
    if of_main && facts.thread.is_main() {
        return likely(
            Kind::StackOverflow,
            format!("stack overflow of the main thread: {no_room}{}", recursion(facts)),
        );
    }
    let at = place.at.as_ref()?;
    let is_in_guard =
        at.is_guard() && place.above.as_ref().is_some_and(|above| above.permissions.write && above.start == at.end);
    let is_at_end = at.permissions.write
        && sp - at.start <= SIGNAL_FRAME_BYTES
        && place.below.as_ref().is_some_and(|below| below.is_guard() && below.end == at.start);
    (is_at_end || is_in_guard).then(|| likely(Kind::StackOverflow, sentence(facts, no_room)))?
}

fn sentence(facts: &Evidence, why: &str) -> String {
    format!("stack overflow {}: {why}{}{}", whose(facts), recursion(facts), of_large_frame(facts))
}

/// Whose a stack is that isn't the main thread's first one.
fn whose(facts: &Evidence) -> String {
    match facts.thread.is_main() {
        true => "on a stack that is not the main thread's first one".to_owned(),
        false => format!("of the thread `{}`", facts.thread.name),
    }
}

/// The function that fills the trace, if one does.
fn recursion(facts: &Evidence) -> String {
    let names = || (0..facts.frames.len()).filter_map(|frame| facts.function(frame));
    let often = names().map(|name| (names().filter(|other| *other == name).count(), name));
    // If functions call each other, the innermost one is named.
    match often.fold((0, ""), |most, next| if next.0 > most.0 { next } else { most }) {
        (count, name) if count >= RECURSION => format!("; {name} is in the stack trace {count} times"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
