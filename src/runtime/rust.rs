//! Rust: panics that end the process, and failed allocations.

use super::stack::StackWords;
use crate::evidence::{Frame, Region};
use crate::probe::abi::{fl_crash, fl_crash_flag, fl_text};

/// Functions that an abort goes through.
pub(super) const ABORT: [&str; 3] =
    ["std::process::abort", "std::sys::pal::unix::abort_internal", "std::sys::unix::abort_internal"];

/// A function that is called if memory could not be allocated.
pub(crate) fn is_allocation_error(function: &str) -> bool {
    ["alloc::alloc::handle_alloc_error", "std::alloc::rust_oom", "__rust_alloc_error_handler", "__rdl_oom"]
        .contains(&function)
}

/// A function of a panic. Not all of std::panicking: every Rust program runs below `std::panicking::try`.
pub(crate) fn is_panic(function: &str) -> bool {
    const WHOLE: [&str; 9] = [
        "rust_begin_unwind",
        "__rustc::rust_begin_unwind",
        "rust_panic",
        "__rustc::rust_panic",
        "__rust_start_panic",
        "__rustc::__rust_start_panic",
        "core::option::unwrap_failed",
        "core::option::expect_failed",
        "core::result::unwrap_failed",
    ];
    const BEGIN: [&str; 5] = [
        "core::panicking::",
        "std::panicking::begin_panic",
        "std::panicking::rust_panic",
        "std::panicking::panic_handler",
        "panic_abort::",
    ];
    WHOLE.contains(&function) || BEGIN.iter().any(|begin| function.starts_with(begin))
}

/// A function of Rust's own libraries.
pub(crate) fn is_librarys(function: &str) -> bool {
    is_panic(function) || ["std::", "core::", "alloc::", "__rust"].iter().any(|begin| function.starts_with(begin))
}

/// A function that stands between the panic and the function that panicked.
pub(crate) fn is_panic_machinery(function: &str) -> bool {
    is_panic(function) || function.starts_with("std::panicking::") || function.contains("__rust_end_short_backtrace")
}

/// A function whose frame holds the message of a panic: the closure that calls the panic's hook.
fn holds_message(function: &str) -> bool {
    let is_handlers = function.contains("panic_handler") || function.contains("begin_panic");
    (function.starts_with("std::panicking::") && is_handlers) || function.contains("__rust_end_short_backtrace")
}

/// How far out the parts of a panic's message are: in the frame of the function that panics, or of one that it has called for that.
const NEAR_BYTES: u64 = 1 << 16;

/// The message of the panic that has called abort(): the text that the right frame leads to.
pub(super) fn message(raw: &fl_crash, frames: &[Frame], stack: &StackWords) -> Option<String> {
    // Go's messages are in other frames.
    if raw.flags.0 & fl_crash_flag::FL_IS_GO.0 != 0 {
        return None;
    }
    let StackWords { start, words: stack } = stack;
    let name = |frame: &Frame| frame.function.as_ref().map(|function| function.name.clone());
    // Inlined functions are frames of their own, with the address of the one that they are part of.
    let mut places: Vec<(u64, bool)> = Vec::new();
    for frame in frames {
        let holds = name(frame).is_some_and(|name| holds_message(&name));
        match places.last_mut() {
            Some((address, before)) if *address == frame.address => *before |= holds,
            _ => places.push((frame.address, holds)),
        }
    }
    let frame = places.iter().position(|(_, holds)| *holds).filter(|&frame| frame > 0)?;
    // Between the return address into this function and that into its caller.
    let mut slot = 0;
    let mut begin = 0;
    for (index, (address, _)) in places.iter().enumerate().take(frame + 2).skip(1) {
        begin = if index <= frame { slot } else { begin };
        slot += stack.get(slot..)?.iter().position(|word| word == address)? + 1;
        begin = if index <= frame { slot } else { begin };
    }
    let place = |text: &fl_text| {
        let word = usize::try_from(text.slot.checked_sub(*start)? / 8).ok()?;
        (text.length != 0 && (begin..slot).contains(&word)).then_some(word)
    };
    let in_a_file = |text: &fl_text, is: fn(&Region, u64) -> bool| {
        frames.iter().filter_map(|frame| frame.region.as_ref()).any(|region| is(region, text.address))
    };
    // What leads to code is a return address of before, with a number behind it.
    let texts = raw.texts.iter().filter(|text| !in_a_file(text, Region::holds));
    let all: Vec<(usize, &fl_text)> = texts.filter_map(|text| Some((place(text)?, text))).collect();
    // A String is its capacity, its address and its length, and behind it is the reference to the message's parts, further out on the stack.
    // A literal is a constant of a file. What stands before and behind them may look like a text as well.
    let is_string = |word: usize| {
        let [most, _, length, parts] = stack.get(word.checked_sub(1)?..word + 3)? else { return None };
        let own = start + word as u64 * 8;
        // The frame's last words are the caller's frame pointer, which leads further out as well, and the return address.
        Some(most >= length && word + 4 < slot && (own..own + NEAR_BYTES).contains(parts))
    };
    let is_constant = |text: &fl_text| in_a_file(text, is_before_code);
    let formatted = || all.iter().find(|(word, _)| is_string(*word) == Some(true));
    let constant = || all.iter().find(|(_, text)| is_constant(text));
    // GNU ld puts constants behind the code, where nothing distinguishes them from the heap: then the place in the frame must suffice.
    let second = all.iter().find(|(word, _)| *word == begin + 1);
    let literal = second.filter(|(_, text)| is_constant(text));
    let (_, found) = literal.or_else(formatted).or_else(constant).or(second)?;
    raw.text(found)
}

/// Is it in the file, before its code? Constants lie there.
fn is_before_code(code: &Region, address: u64) -> bool {
    (code.start.saturating_sub(code.file_offset)..code.start).contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Backing, Function, Permissions};

    const STACK: u64 = 0x7ffd_0000_1000;

    fn frame(address: u64, name: &str, inlined: bool) -> Frame {
        let function = Function { name: name.to_owned(), offset: None, file: None, line: None, inlined };
        Frame { address, function: Some(function), ..Frame::default() }
    }

    /// A stack with a pair in each frame, and the text at the place of `slot`.
    fn dead(slot: u64) -> fl_crash {
        let mut raw = fl_crash::default();
        for (to, from) in raw.strings.iter_mut().zip(b"index out of bounds") {
            *to = (*from).cast_signed();
        }
        raw.texts[0] = fl_text { address: 0x1000, slot: STACK + slot * 8, offset: 0, length: 19 };
        raw
    }

    #[test]
    fn only_the_frame_of_the_panic_has_its_message() {
        let mut frames = [
            frame(1, "abort", false),
            frame(0x11, "std::panicking::rust_panic_with_hook", false),
            frame(0x12, "std::panicking::begin_panic_handler::{{closure}}", true),
            frame(0x12, "std::sys::backtrace::__rust_end_short_backtrace", false),
            frame(0x13, "rust_begin_unwind", false),
            frame(0x14, "main", false),
        ];
        // The file's constants lie at 0x1000, before its code.
        let code = |file_offset, start, end| {
            let (permissions, backing) = (Permissions::default(), Backing::Anonymous);
            Some(Region { start, end, permissions, file_offset, backing })
        };
        frames[0].region = code(0x1000, 0x2000, 0x3000);
        let stack = [0, 0x11, 7, 7, 0x12, 7, 7, 0x13, 7, 7, 0x14];
        let message = |raw: &fl_crash, frames: &[Frame], words: &[u64]| {
            message(raw, frames, &StackWords { start: STACK, words: words.to_vec() })
        };
        let text = |slot| message(&dead(slot), &frames, &stack);
        assert_eq!(text(5).as_deref(), Some("index out of bounds"));
        assert_eq!(text(2), None, "of the frame below");
        assert_eq!(text(8), None, "of its caller");
        assert_eq!(message(&dead(5), &frames[..2], &stack), None, "the stack shows no panic");
        assert_eq!(message(&dead(5), &frames, &stack[..4]), None, "the stack is not known so far");
        // Before a String stands something that leads to another text.
        let mut raw = dead(5);
        raw.texts[1] = fl_text { address: 0x1009, slot: STACK + 7 * 8, offset: 9, length: 10 };
        let parts = STACK + 0x100;
        let stack = [0, 0x11, 7, 7, 0x12, 0x1000, 20, 0x1009, 10, parts, 7, 0x13, 7, 7, 0x14];
        assert_eq!(message(&raw, &frames, &stack).as_deref(), Some(" of bounds"));
        let stack = [0, 0x11, 7, 7, 0x12, 0x1000, 20, 0x1009, 10, parts, 0x13, 7, 7, 0x14];
        let literal = message(&raw, &frames, &stack);
        assert_eq!(literal.as_deref(), Some("index out of bounds"), "the caller's frame pointer");
        // Before and behind a literal may be words of before that lead to a text, too: to code, or to the heap.
        let stack = [0, 0x11, 7, 7, 0x12, 0x1000, 20, 0x1009, 10, 0, 0x13, 7, 7, 0x14];
        let with_code = |file_offset, start, end| {
            let mut frames = frames.clone();
            frames[0].region = code(file_offset, start, end);
            frames
        };
        assert_eq!(message(&raw, &with_code(0x100, 0x9000, 0xa000), &stack), None, "neither is a constant");
        assert_eq!(message(&raw, &with_code(0, 0x1000, 0x1009), &stack), None, "code, and no constant");
        let literal = message(&raw, &with_code(0x100, 0x1100, 0x2000), &stack);
        assert_eq!(literal.as_deref(), Some("index out of bounds"));
        let heap = message(&raw, &with_code(4, 0x100c, 0x2000), &stack);
        assert_eq!(heap.as_deref(), Some(" of bounds"), "what stands before it is no constant");
        // Behind the code, in the frame's second word.
        let stack = [0, 0x11, 7, 7, 0x12, 0, 0x1000, 20, 0x13, 7, 7, 0x14];
        let behind = message(&dead(6), &with_code(0x100, 0x500, 0x1000), &stack);
        assert_eq!(behind.as_deref(), Some("index out of bounds"));
        let own = [frame(1, "abort", false), frame(0x12, "main", false), frame(0x13, "start", false)];
        assert_eq!(message(&dead(5), &own, &stack), None, "no function of a panic");
    }
}
