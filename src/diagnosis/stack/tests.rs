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
    assert_eq!(text(&main_thread()), "stack overflow of the main thread: the stack has grown to its limit (128 KiB)");
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
    case = case.at(START - 0x1f000);
    assert_eq!(confidence(&case), Some(Confidence::Likely), "or a stack pointer that was set to there");
    case = case.at(START - 8);
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
    (case.frame_bytes, case.is_unwindable) = (Some(64), true);
    case.called(&["leaf", "walk", "run", "start_thread"])
}

#[test]
fn a_threads_stack_ends_in_a_guard_page() {
    assert_eq!(text(&thread()), "stack overflow of the thread `deep`: it has reached its guard page");
    assert_eq!(confidence(&thread()), Some(Confidence::Certain));
    let mut case = thread().mapped(&[guard()]);
    (case.registers.rsp, case.frame_bytes) = (0x2_0f00, Some(0x200));
    assert_eq!(confidence(&case), Some(Confidence::Likely), "nothing lies above");
    let case = case.mapped(&thread().regions);
    assert_eq!(confidence(&case), Some(Confidence::Certain));
}

#[test]
fn a_stack_pointer_may_have_been_set_to_the_wrong_end() {
    let likely = |case: Case| {
        assert_eq!((kind(&case), confidence(&case)), (Some(Kind::StackOverflow), Some(Confidence::Likely)));
        assert!(text(&case).ends_with("guard page, unless its stack pointer was set to the wrong end of its memory"));
    };
    likely(thread().called(&["start", "main"]));
    likely(Case { frame_bytes: None, ..thread() });
    likely(Case { is_unwindable: false, ..thread() });
    likely(Case { frame_bytes: Some(0x7000_0000), ..thread() });
    let deep = Case { is_unwindable: false, ..thread() }.called(&["walk", "walk", "walk", "?"]);
    assert_eq!(confidence(&deep), Some(Confidence::Certain));
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
    let case = Case { frame_bytes: None, ..thread() };
    let case = case.mapped(&[region(0x2_0000, 0x2_1000, "r--"), region(0x2_1000, 0x3_1000, "rw-")]);
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
    let case = Case { si_code: 1, is_unwindable: false, ..thread() };
    let mut case = case.mapped(&[stack(), far()]).called(&deep);
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

#[test]
fn a_stack_pointer_that_was_moved_is_no_frame() {
    let mut case = Case { frame_bytes: Some(1 << 20), ..main_thread() }.at(START - 0x8_0000);
    case.registers.rsp = START - 0xf_f000;
    assert!(text(&case).contains(" has 1.0 MiB, and "), "{}", text(&case));
    assert_eq!(confidence(&case), Some(Confidence::Certain));
    let moved = Case { is_frame_sized: false, ..case };
    assert!(text(&moved).ends_with(", unless its stack pointer was moved by anything else"), "{}", text(&moved));
    assert_eq!(confidence(&moved), Some(Confidence::Likely));
    let near = |is_frame_sized| Case { frame_bytes: Some(1 << 20), is_frame_sized, ..main_thread().called(&["f"]) };
    assert!(text(&near(true)).ends_with("; the frame of f has 1.0 MiB"));
    assert!(text(&near(false)).ends_with("limit (128 KiB)"), "{}", text(&near(false)));
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
    for (call, is_compat) in
        FATAL_IF_FAILED.map(|call| (call, false)).into_iter().chain([(COMPAT_FATAL_IF_FAILED[1], true)])
    {
        let failed = Case { call, is_compat, ..case.clone() };
        assert_eq!(kind(&failed), None, "{call}: it may be the frame of a handler that has run, or an execve()");
    }
}
