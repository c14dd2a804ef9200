//! Stacks that have no room left.
//!
//! The proof is always two facts that agree: an address just outside of a stack, and a stack pointer that leads there.

use super::super::record::Diagnosis;
use super::facts::{Backing, Facts, Mapping, size};
use super::{PAGE, SEGV_ACCERR, SEGV_MAPERR, certain, likely, sure};

/// How far below the stack pointer a function may reach: the red zone (System V ABI 3.2.2) and one push.
const RED_ZONE: u64 = 128 + 8;
/// The largest frame that is believed: farther away it may be any broken pointer.
const FRAME_MAX: u64 = 16 << 20;
/// What the kernel keeps free below a growing stack: stack_guard_gap, 256 pages.
const GAP: u64 = 256 * PAGE;
/// A signal's frame: the red zone and the registers, 11 KiB with AMX.
const SIGNAL_FRAME: u64 = 12 << 10;
/// So often must a function stand in the trace to be called the recursion.
const RECURSION: usize = 3;

/// An access at `address` that the stack pointer explains.
pub(super) fn overflow(facts: &Facts, address: u64, code: i32) -> Option<Diagnosis> {
    let rsp = facts.registers.as_ref()?.rsp;
    let leads_there = address.saturating_add(RED_ZONE) >= rsp && address.saturating_sub(rsp) <= FRAME_MAX;
    if !leads_there {
        return None;
    }
    match &facts.memory.at {
        None => below_main_stack(facts, address),
        Some(at) if !at.holds(address) => None,
        Some(guard) if guard.is_guard() && code == SEGV_ACCERR => in_guard(facts, guard, address, rsp),
        Some(stack) if code == SEGV_MAPERR => at_guard_mark(facts, stack, address, rsp),
        Some(_) => None,
    }
}

fn below_main_stack(facts: &Facts, address: u64) -> Option<Diagnosis> {
    let stack = main_stack_above(facts.memory.above.as_ref(), address)?;
    if facts.is_main_thread == Some(false) {
        return None;
    }
    let what = "stack overflow of the main thread: the stack";
    let grown = stack.end - (address & !(PAGE - 1));
    let now = size(stack.end - stack.start);
    let under = facts.memory.below.as_ref().filter(|below| below.end <= address && address - below.end < GAP);
    let recursion = recursion(facts);
    match (facts.stack_limit, under) {
        (Some(limit), _) if grown > limit => {
            certain("stack_overflow", format!("{what} has grown to its limit ({}){recursion}", size(limit)))
        }
        (_, Some(under)) => likely(
            "stack_overflow",
            format!("{what} has grown to {now}, down to the mapping below it ({}){recursion}", under.text()),
        ),
        (limit, None) => {
            sure(limit.is_none(), "stack_overflow", format!("{what} of {now} cannot grow any further{recursion}"))
        }
    }
}

/// The main thread's stack, if `address` is right below it.
fn main_stack_above(above: Option<&Mapping>, address: u64) -> Option<&Mapping> {
    above.filter(|above| {
        above.backing == Backing::MainStack && address < above.start && above.start - address <= FRAME_MAX
    })
}

/// In the guard page of a stack that the program or its thread library made.
fn in_guard(facts: &Facts, guard: &Mapping, address: u64, rsp: u64) -> Option<Diagnosis> {
    let adjacent = |mapping: &&Mapping| mapping.start == guard.end && mapping.writable;
    let is_known = facts.memory.above.as_ref().or(facts.stack.at.as_ref()).is_some_and(|above| adjacent(&above));
    if guard.end - address > FRAME_MAX {
        return None;
    }
    let text = || sentence(facts, "it has reached its guard page");
    match guard.holds(rsp) || rsp >= guard.end {
        true if is_known => certain("stack_overflow", text()),
        // What lies above is unknown, but the stack pointer is in memory that nobody may access.
        true if guard.holds(rsp) => likely("stack_overflow", text()),
        // A frame that is larger than the guard. In a mapping below it the stack pointer may be at home.
        false if is_known && facts.stack.is_hole() => likely("stack_overflow", text()),
        _ => None,
    }
}

/// From Linux 6.13 on a guard may be a mark on pages of the stack's own mapping (MADV_GUARD_INSTALL, as glibc 2.42): the
/// mapping allows the access, and yet the kernel says that nothing is mapped.
fn at_guard_mark(facts: &Facts, stack: &Mapping, address: u64, rsp: u64) -> Option<Diagnosis> {
    let is_stack = stack.backing == Backing::Anonymous && stack.readable && stack.writable && !stack.shared;
    // Mappings of neighbouring stacks are merged: from farther away it may be the next one's guard.
    let is_near = address.saturating_sub(rsp) < PAGE;
    (is_stack && is_near && stack.holds(rsp) && !facts.is_present())
        .then(|| likely("stack_overflow", sentence(facts, "it has reached its guard page")))?
}

/// The kernel could not write a signal's frame (SI_KERNEL, no address): the stack pointer is at a stack's end.
pub(super) fn signal_frame(facts: &Facts) -> Option<Diagnosis> {
    if facts.fault_address.is_some() {
        return None;
    }
    let rsp = facts.registers.as_ref()?.rsp;
    let place = &facts.stack;
    let no_room = "no room is left even for a signal handler's frame";
    let lowest = rsp.saturating_sub(SIGNAL_FRAME);
    let is_over = |stack: &Mapping| {
        let grown = stack.end - (lowest & !(PAGE - 1));
        facts.stack_limit.is_some_and(|limit| grown > limit)
    };
    if place.at.as_ref().is_some_and(|at| !at.holds(rsp)) {
        return None;
    }
    let of_main = match &place.at {
        None => main_stack_above(place.above.as_ref(), rsp).is_some(),
        Some(at) => at.backing == Backing::MainStack && rsp - at.start <= SIGNAL_FRAME && is_over(at),
    };
    if of_main && facts.is_main_thread != Some(false) {
        return likely("stack_overflow", format!("stack overflow of the main thread: {no_room}{}", recursion(facts)));
    }
    let at = place.at.as_ref()?;
    let is_at_end = at.writable
        && rsp - at.start <= SIGNAL_FRAME
        && place.below.as_ref().is_some_and(|below| below.is_guard() && below.end == at.start);
    let is_in_guard =
        at.is_guard() && place.above.as_ref().is_some_and(|above| above.writable && above.start == at.end);
    (is_at_end || is_in_guard).then(|| likely("stack_overflow", sentence(facts, no_room)))?
}

fn sentence(facts: &Facts, why: &str) -> String {
    let whose = match (facts.is_main_thread, &facts.thread_name) {
        (Some(true), _) => "on a stack that is not the main thread's first one".to_owned(),
        (Some(false), Some(name)) => format!("of the thread `{name}`"),
        (Some(false), None) => "of a thread".to_owned(),
        (None, _) => "on a stack that is not the main thread's".to_owned(),
    };
    format!("stack overflow {whose}: {why}{}", recursion(facts))
}

/// The function that fills the trace, if one does.
fn recursion(facts: &Facts) -> String {
    let names = || (0..facts.frames.len()).filter_map(|frame| facts.function(frame));
    let often = names().map(|name| (names().filter(|other| *other == name).count(), name));
    // Of functions that call each other the innermost one is named.
    match often.fold((0, ""), |most, next| if next.0 > most.0 { next } else { most }) {
        (count, name) if count >= RECURSION => format!("; {name} is in the stack trace {count} times"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{confidence, facts as signal, fault, mapping, name, text};
    use super::super::facts::Surroundings;
    use super::*;

    const START: u64 = 0x7ffd_0000_0000;
    const LIMIT: u64 = 128 << 10;

    fn main_stack() -> Mapping {
        Mapping { backing: Backing::MainStack, ..mapping(START, START + LIMIT, "rw-") }
    }

    /// The main thread, a push below its stack.
    fn main_thread() -> Facts {
        let mut facts = fault(1, START - 8, 6);
        facts.registers.as_mut().unwrap().rsp = START;
        facts.memory.above = Some(main_stack());
        facts.stack_limit = Some(LIMIT);
        facts
    }

    #[test]
    fn the_main_threads_stack_has_a_limit() {
        assert_eq!(
            text(&main_thread()),
            "stack overflow of the main thread: the stack has grown to its limit (128 KiB)"
        );
        assert_eq!(confidence(&main_thread()), Some("certain"));
        let facts = Facts { stack_limit: None, ..main_thread() };
        assert_eq!(text(&facts), "stack overflow of the main thread: the stack of 128 KiB cannot grow any further");
    }

    #[test]
    fn below_its_limit_it_is_likely_at_best() {
        let mut facts = Facts { stack_limit: Some(8 << 20), ..main_thread() };
        assert_eq!(confidence(&facts), Some("likely"));
        assert!(!text(&facts).contains("limit"));
        facts.memory.below = Some(mapping(START - 0x8000, START - 0x4000, "rw-"));
        assert!(text(&facts).contains("down to the mapping below it (anonymous memory, rw-p)"));
    }

    #[test]
    fn the_stack_pointer_must_lead_there() {
        let mut facts = main_thread();
        facts.registers.as_mut().unwrap().rsp = START + 0x1000;
        assert_eq!(name(&facts), None, "a pointer to below the stack, from a stack with room");
        facts.registers.as_mut().unwrap().rsp = START - 0x20000;
        assert_eq!(name(&facts), Some("stack_overflow"), "a large frame");
        facts.registers.as_mut().unwrap().rsp = START - (32 << 20);
        assert_eq!(name(&facts), None, "too large to be a frame");
        facts.registers = None;
        assert_eq!(name(&facts), None);
    }

    #[test]
    fn near_the_stack_is_not_below_it() {
        let mut facts = main_thread();
        facts.fault_address = Some(START - (64 << 20));
        facts.registers.as_mut().unwrap().rsp = START - (64 << 20);
        assert_eq!(name(&facts), None, "far below");
        let mut facts = main_thread();
        facts.memory.above = Some(mapping(START, START + LIMIT, "rw-"));
        assert_eq!(name(&facts), None, "not the stack");
        let facts = Facts { is_main_thread: Some(false), ..main_thread() };
        assert_eq!(name(&facts), None, "another thread's stack");
    }

    #[test]
    fn recursion_is_named_where_the_trace_shows_it() {
        let frame = |name: &str| Some(name.to_owned());
        let mut facts = main_thread();
        facts.frames = vec![frame("memset"), frame("walk+0x8"), frame("walk+0x1c"), None, frame("main")];
        assert!(!text(&facts).contains("walk"));
        facts.frames.insert(2, frame("walk+0x1c"));
        assert!(text(&facts).ends_with("; walk is in the stack trace 3 times"));
    }

    /// Another thread, in the guard page below its stack.
    fn thread() -> Facts {
        let mut facts = fault(2, 0x2_0ff8, 6);
        facts.is_main_thread = Some(false);
        facts.thread_name = Some("deep".to_owned());
        facts.registers.as_mut().unwrap().rsp = 0x2_1000;
        facts.memory.at = Some(mapping(0x2_0000, 0x2_1000, "---"));
        facts.stack.at = Some(mapping(0x2_1000, 0x3_1000, "rw-"));
        facts
    }

    #[test]
    fn a_threads_stack_ends_in_a_guard_page() {
        assert_eq!(text(&thread()), "stack overflow of the thread `deep`: it has reached its guard page");
        assert_eq!(confidence(&thread()), Some("certain"));
        let mut facts = thread();
        facts.registers.as_mut().unwrap().rsp = 0x2_0f00;
        facts.stack.at = facts.memory.at.clone();
        assert_eq!(confidence(&facts), Some("likely"), "what lies above is unknown");
        facts.memory.above = Some(mapping(0x2_1000, 0x3_1000, "rw-"));
        assert_eq!(confidence(&facts), Some("certain"));
    }

    #[test]
    fn a_guard_page_elsewhere_is_no_stacks() {
        let mut facts = thread();
        facts.registers.as_mut().unwrap().rsp = 0x2_8000;
        assert_eq!(name(&facts), None, "the stack has room");
        let mut facts = thread();
        facts.stack.at = Some(mapping(0x2_2000, 0x3_1000, "rw-"));
        assert_eq!(name(&facts), None, "not adjacent");
        let mut facts = thread();
        facts.registers.as_mut().unwrap().rsp = 0x1_f800;
        facts.stack.at = Some(mapping(0x1_f000, 0x2_0000, "rw-"));
        facts.memory.above = Some(mapping(0x2_1000, 0x3_1000, "rw-"));
        assert_ne!(name(&facts), Some("stack_overflow"), "the stack is below the guard");
        facts.stack = super::super::cases::hole();
        assert_eq!(confidence(&facts), Some("likely"), "a frame larger than the guard");
        let mut facts = thread();
        facts.memory.at = Some(mapping(0x2_0000, 0x2_1000, "r--"));
        assert_ne!(name(&facts), Some("stack_overflow"), "readable: no guard");
    }

    #[test]
    fn a_guard_may_be_a_mark_in_the_stacks_mapping() {
        let mut facts = Facts { si_code: Some(1), ..thread() };
        facts.memory.at = Some(mapping(0x2_0000, 0x3_1000, "rw-"));
        assert_eq!(confidence(&facts), Some("likely"));
        facts.registers.as_mut().unwrap().rsp = 0x2_0000;
        facts.fault_address = Some(0x2_1000);
        assert_eq!(name(&facts), None, "farther above the stack pointer than a page: the next stack's guard");
        facts.fault_address = Some(0x2_0008);
        assert_eq!(name(&facts), Some("stack_overflow"));
        facts.page_fault = Some(7);
        assert_eq!(name(&facts), None, "a page is there");
        facts.page_fault = Some(6);
        facts.registers.as_mut().unwrap().rsp = 0x4_0000;
        assert_eq!(name(&facts), None, "the stack is elsewhere");
    }

    /// The kernel found no room for a handler's frame.
    fn no_frame() -> Facts {
        let mut facts = Facts { no_trap: true, ..signal(11, 0x80) };
        facts.registers.as_mut().unwrap().rsp = START - 8;
        facts.stack = Surroundings { above: Some(main_stack()), ..Surroundings::default() };
        facts
    }

    #[test]
    fn no_room_for_a_handler() {
        assert!(text(&no_frame()).contains("of the main thread: no room is left even for a signal handler's frame"));
        let mut facts = no_frame();
        facts.stack.above = None;
        assert_eq!(name(&facts), None, "where the stack pointer leads is unknown");
        let facts = Facts { trap_nr: Some(13), ..no_frame() };
        assert_eq!(name(&facts), None);
        let facts = Facts { no_trap: false, ..no_frame() };
        assert_eq!(name(&facts), None, "there may have been a trap");
    }

    #[test]
    fn no_room_at_a_stacks_last_bytes() {
        let mut facts = no_frame();
        facts.registers.as_mut().unwrap().rsp = START + 0x100;
        facts.stack = Surroundings { at: Some(main_stack()), ..Surroundings::default() };
        assert_eq!(name(&facts), None, "it may grow");
        facts.stack_limit = Some(LIMIT);
        assert_eq!(name(&facts), Some("stack_overflow"));
        facts.registers.as_mut().unwrap().rsp = START + 0x8000;
        assert_eq!(name(&facts), None, "there is room");
        facts.registers.as_mut().unwrap().rsp = 0x2_1100;
        facts.stack.at = Some(mapping(0x2_1000, 0x3_1000, "rw-"));
        assert_eq!(name(&facts), None);
        for below in [mapping(0x2_0000, 0x2_1000, "rw-"), mapping(0x1_f000, 0x2_0000, "---")] {
            facts.stack.below = Some(below);
            assert_eq!(name(&facts), None, "no guard, or not adjacent");
        }
        facts.stack.below = Some(mapping(0x2_0000, 0x2_1000, "---"));
        assert_eq!(name(&facts), Some("stack_overflow"));
    }
}
