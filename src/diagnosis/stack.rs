//! Stacks without room.
//!
//! The proof is always two facts that agree: an address just outside of a stack, and a stack pointer that leads there.

use super::words::{self, size};
use super::{Diagnosis, Kind, SEGV_ACCERR, SEGV_MAPERR, certain, likely, sure};
use crate::arch::syscall::RT_SIGRETURN;
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

/// An access at `address` that the stack pointer explains.
pub(super) fn overflow(facts: &Evidence, address: u64, code: i32) -> Option<Diagnosis> {
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
    sure(bytes <= BELIEVED, Kind::StackOverflow, text)
}

/// What a large frame adds to a sentence.
fn of_large_frame(facts: &Evidence) -> String {
    let name = facts.function(0);
    match facts.frame_bytes.filter(|&bytes| (LARGE..=LARGEST).contains(&bytes)).zip(name) {
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
    match (facts.stack_limit, under) {
        (Some(limit), _) if grown > limit => {
            certain(Kind::StackOverflow, format!("{what} has grown to its limit ({}){recursion}", size(limit)))
        }
        (_, Some(under)) => likely(
            Kind::StackOverflow,
            format!("{what} has grown to {now}, down to the mapping below it ({}){recursion}", words::region(under)),
        ),
        (limit, None) => {
            sure(limit.is_none(), Kind::StackOverflow, format!("{what} of {now} cannot grow any further{recursion}"))
        }
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
    let is_walked = facts.frames.len() > RECURSION && (facts.is_unwindable || !recursion(facts).is_empty());
    if !is_stacks || !is_at_begin || !is_walked || sp.saturating_sub(start) > REACH_BELOW_STACK_POINTER {
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

/// In the guard page of a stack that the program or its thread library made.
fn in_guard(facts: &Evidence, guard: &Region, address: u64, sp: u64) -> Option<Diagnosis> {
    let adjacent = |mapping: &&Region| mapping.start == guard.end && mapping.permissions.write;
    let is_known = facts.memory.above.as_ref().or(facts.stack.at.as_ref()).is_some_and(|above| adjacent(&above));
    if guard.end - address > FRAME_MAX {
        return None;
    }
    let text = || sentence(facts, "it has reached its guard page");
    match guard.holds(sp) || sp >= guard.end {
        true if is_known => certain(Kind::StackOverflow, text()),
        // The mapping above is unknown, but the stack pointer is in memory without permissions.
        true if guard.holds(sp) => likely(Kind::StackOverflow, text()),
        // A frame that is larger than the guard. In a mapping below it the stack pointer may be valid.
        false if is_known && facts.stack.is_hole() => likely(Kind::StackOverflow, text()),
        _ => None,
    }
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
    // A return from a handler ends so, too, if its frame can't be read.
    if facts.fault_address.is_some() || facts.entry_call == Some(RT_SIGRETURN) {
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
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, Entry, confidence, far, fault, file, kind, region, signal, text};
    use super::*;

    const START: u64 = 0x7ffd_0000_0000;
    const LIMIT: u64 = 128 << 10;

    fn main_stack() -> Region {
        Region { backing: Backing::MainStack, ..region(START, START + LIMIT, "rw-") }
    }

    /// The main thread, a push below its stack.
    fn main_thread() -> Case {
        let mut case = fault(1, START - 8, 6).mapped(&[main_stack()]);
        case.registers.rsp = START;
        case.stack_limit = LIMIT;
        case
    }

    #[test]
    fn the_main_threads_stack_has_a_limit() {
        assert_eq!(
            text(&main_thread()),
            "stack overflow of the main thread: the stack has grown to its limit (128 KiB)"
        );
        assert_eq!(confidence(&main_thread()), Some(Confidence::Certain));
        let case = Case { stack_limit: 0, ..main_thread() };
        assert_eq!(text(&case), "stack overflow of the main thread: the stack of 128 KiB cannot grow any further");
    }

    #[test]
    fn below_its_limit_it_is_likely_at_best() {
        let mut case = Case { stack_limit: 8 << 20, ..main_thread() };
        assert_eq!(confidence(&case), Some(Confidence::Likely));
        assert!(!text(&case).contains("limit"));
        case.regions.push(region(START - 0x8000, START - 0x4000, "rw-"));
        assert!(text(&case).contains("down to the mapping below it (anonymous memory, rw-p)"));
    }

    #[test]
    fn the_stack_pointer_must_lead_there() {
        let mut case = main_thread();
        case.registers.rsp = START + 0x1000;
        assert_eq!(kind(&case), None, "a pointer to below the stack, from a stack with room");
        case.registers.rsp = START - 0x20000;
        assert_eq!(kind(&case), Some(Kind::StackOverflow), "a large frame");
        case.registers.rsp = START - (32 << 20);
        assert_eq!(kind(&case), None, "too large to be a frame");
        case.has_registers = false;
        assert_eq!(kind(&case), None);
    }

    #[test]
    fn near_the_stack_is_not_below_it() {
        let mut case = main_thread().at(START - (64 << 20));
        case.registers.rsp = START - (64 << 20);
        assert_eq!(kind(&case), None, "far below");
        let case = main_thread().mapped(&[region(START, START + LIMIT, "rw-")]);
        assert_eq!(kind(&case), None, "not the stack");
        let case = Case { is_main_thread: false, ..main_thread() };
        assert_eq!(kind(&case), None, "another thread's stack");
    }

    #[test]
    fn recursion_is_named_where_the_trace_shows_it() {
        let case = main_thread().called(&["memset", "walk", "walk", "?", "main"]);
        assert!(!text(&case).contains("walk"));
        let case = case.called(&["memset", "walk", "walk", "walk", "?", "main"]);
        assert!(text(&case).ends_with("; walk is in the stack trace 3 times"));
    }

    fn guard() -> Region {
        region(0x2_0000, 0x2_1000, "---")
    }

    /// Another thread, in the guard page below its stack.
    fn thread() -> Case {
        let mut case = fault(2, 0x2_0ff8, 6).mapped(&[guard(), region(0x2_1000, 0x3_1000, "rw-")]);
        case.is_main_thread = false;
        case.thread_name = "deep";
        case.registers.rsp = 0x2_1000;
        case
    }

    #[test]
    fn a_threads_stack_ends_in_a_guard_page() {
        assert_eq!(text(&thread()), "stack overflow of the thread `deep`: it has reached its guard page");
        assert_eq!(confidence(&thread()), Some(Confidence::Certain));
        let mut case = thread().mapped(&[guard()]);
        case.registers.rsp = 0x2_0f00;
        assert_eq!(confidence(&case), Some(Confidence::Likely), "nothing lies above");
        let case = case.mapped(&thread().regions);
        assert_eq!(confidence(&case), Some(Confidence::Certain));
    }

    #[test]
    fn a_guard_page_elsewhere_is_no_stacks() {
        let mut case = thread();
        case.registers.rsp = 0x2_8000;
        assert_eq!(kind(&case), None, "the stack has room");
        let case = thread().mapped(&[guard(), region(0x2_2000, 0x3_1000, "rw-")]);
        assert_eq!(kind(&case), None, "not adjacent");
        let mut case = thread();
        case.regions.push(region(0x1_f000, 0x2_0000, "rw-"));
        case.registers.rsp = 0x1_f800;
        assert_ne!(kind(&case), Some(Kind::StackOverflow), "the stack is below the guard");
        case.regions.pop();
        case.regions.push(far());
        assert_eq!(confidence(&case), Some(Confidence::Likely), "a frame larger than the guard");
        let case = thread().mapped(&[region(0x2_0000, 0x2_1000, "r--"), region(0x2_1000, 0x3_1000, "rw-")]);
        assert_ne!(kind(&case), Some(Kind::StackOverflow), "readable: no guard");
    }

    #[test]
    fn a_guard_may_be_a_mark_in_the_stacks_mapping() {
        let mut case = Case { si_code: 1, ..thread() }.mapped(&[region(0x2_0000, 0x3_1000, "rw-")]);
        assert_eq!(confidence(&case), Some(Confidence::Likely));
        case.registers.rsp = 0x2_0000;
        let case = case.at(0x2_1000);
        assert_eq!(kind(&case), None, "farther above the stack pointer than a page: the next stack's guard");
        let mut case = case.at(0x2_0008);
        assert_eq!(kind(&case), Some(Kind::StackOverflow));
        case.error_code = 7;
        assert_eq!(kind(&case), None, "a page is there");
        case.error_code = 6;
        case.registers.rsp = 0x4_0000;
        assert_eq!(kind(&case), None, "the stack is elsewhere");
    }

    #[test]
    fn a_stack_without_a_guard_ends_where_its_mapping_does() {
        let stack = || region(0x2_1000, 0x3_1000, "rw-");
        let deep = ["walk", "walk", "walk", "walk"];
        let mut case = Case { si_code: 1, frame_bytes: Some(64), ..thread() }.mapped(&[stack(), far()]).called(&deep);
        assert_eq!(
            text(&case),
            "stack overflow of the thread `deep`: it has reached the begin of its mapping, and below that nothing is mapped; \
              walk is in the stack trace 4 times"
        );
        assert_eq!(confidence(&case), Some(Confidence::Likely));
        assert_eq!(kind(&case.clone().called(&["walk", "main"])), None, "a stack pointer at the wrong end");
        assert_eq!(kind(&case.clone().called(&["walk", "?", "?", "?"])), None, "nothing proves that these are frames");
        assert_eq!(kind(&Case { frame_bytes: None, ..case.clone() }), None, "it isn't known where the frame begins");
        let literals = file("/bin/x", region(0x2_0000, 0x2_1000, "r--"));
        let closed = Case { si_code: 2, error_code: 7, ..case.clone() }.mapped(&[literals, stack()]);
        assert!(text(&closed).contains("and below that there is memory that may not be written (/bin/x, r--p)"));
        let mut into = closed.clone();
        into.registers.rsp = 0x2_0fe0;
        assert_eq!(text(&into), text(&closed), "the frame reaches into it");
        into.frame_bytes = Some(16);
        assert_eq!(kind(&into), Some(Kind::WriteToReadOnly), "all of the frame is there");
        case.registers.rsp = 0x2_1800;
        assert_eq!(kind(&case), None, "the stack has room");
        let shared = Case { registers: closed.registers, ..case }.mapped(&[region(0x2_1000, 0x3_1000, "rw-s"), far()]);
        assert_eq!(kind(&shared), None, "shared memory");
    }

    /// The kernel found no room for a handler's frame.
    fn no_frame() -> Case {
        let mut case = Case { trap_nr: 14, entry: Entry::Call, ..signal(11, 0x80) }.mapped(&[main_stack()]);
        case.registers.rsp = START - 8;
        case
    }

    #[test]
    fn no_room_for_a_handler() {
        assert!(text(&no_frame()).contains("of the main thread: no room is left even for a signal handler's frame"));
        assert_eq!(kind(&no_frame().mapped(&[])), None, "where the stack pointer leads is unknown");
        let stale = Case { trap_nr: 13, ..no_frame() };
        assert_eq!(kind(&stale), Some(Kind::StackOverflow), "a trap of before: this signal came at the end of a call");
        let case = Case { entry: Entry::Trap, ..stale };
        assert_eq!(kind(&case), None, "there may have been a trap");
    }

    #[test]
    fn no_room_at_a_stacks_last_bytes() {
        let mut case = no_frame();
        case.registers.rsp = START + 0x100;
        assert_eq!(kind(&case), None, "it may grow");
        case.stack_limit = LIMIT;
        assert_eq!(kind(&case), Some(Kind::StackOverflow));
        case.registers.rsp = START + 0x8000;
        assert_eq!(kind(&case), None, "there is room");
        case.registers.rsp = 0x2_1100;
        let stack = region(0x2_1000, 0x3_1000, "rw-");
        for below in [region(0x2_0000, 0x2_1000, "rw-"), region(0x1_f000, 0x2_0000, "---")] {
            let case = case.clone().mapped(&[below, stack.clone()]);
            assert_eq!(kind(&case), None, "no guard, or not adjacent");
        }
        let case = case.mapped(&[guard(), stack]);
        assert_eq!(kind(&case), Some(Kind::StackOverflow));
        assert_eq!(confidence(&case), Some(Confidence::Likely), "other failures of the kernel's end so, too");
        assert_eq!(kind(&Case { call: RT_SIGRETURN, ..case }), None, "it may be the frame of a handler that has run");
    }
}
