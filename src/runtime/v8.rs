//! V8 (Node, Chromium): the message of a check that has failed. V8_Fatal() keeps it on the stack between two marks, for those who look at it
//! afterwards: `FailureMessage`, src/base/logging.cc.

use super::stack::StackWords;
use crate::evidence::Frame;

/// The words before and behind the text, which has so many words of room.
const BEGIN: u64 = 0xdeca_de10;
const END: u64 = 0xdeca_de11;
const TEXT_WORDS: usize = 64;

/// A function that V8 ends a process by where memory is short, or its heap has reached its limit.
pub(crate) fn is_out_of_memory(function: &str) -> bool {
    ["v8::internal::V8::FatalProcessOutOfMemory", "v8::internal::Heap::FatalProcessOutOfMemory"].contains(&function)
}

/// Is it a function of V8's?
pub(crate) fn is_own(function: &str) -> bool {
    function.starts_with("v8::")
}

/// What V8_Fatal() was called for, if it is in the stack trace.
pub(super) fn message(frames: &[Frame], stack: &StackWords) -> Option<String> {
    let is_fatal =
        |frame: &Frame| frame.function.as_ref().is_some_and(|function| function.name.starts_with("V8_Fatal"));
    if !frames.iter().any(is_fatal) {
        return None;
    }
    let is = |words: &&[u64]| words.first() == Some(&BEGIN) && words.last() == Some(&END);
    let words = stack.words.windows(TEXT_WORDS + 2).find(is)?;
    let bytes: Vec<u8> = words.iter().skip(1).take(TEXT_WORDS).flat_map(|word| word.to_le_bytes()).collect();
    let text = std::ffi::CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?;
    (!text.is_empty()).then(|| text.chars().take(TEXT_CHARS).collect())
}

/// As of other runtimes.
const TEXT_CHARS: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Function;

    #[test]
    fn the_text_stands_between_its_marks() {
        let named = |name: &str| {
            let function = Function { name: name.to_owned(), offset: None, file: None, line: None, inlined: false };
            vec![Frame { function: Some(function), ..Frame::default() }]
        };
        let stack = |begin, end| {
            let mut words = vec![7, begin, u64::from_le_bytes(*b"Check fa"), u64::from_le_bytes(*b"iled: x\0")];
            words.resize(TEXT_WORDS + 2, 0);
            words.push(end);
            StackWords { start: 0x1000, words }
        };
        let fatal = named("V8_Fatal(char const*, ...)");
        assert_eq!(message(&fatal, &stack(BEGIN, END)).as_deref(), Some("Check failed: x"));
        assert_eq!(message(&fatal, &stack(BEGIN, 0)), None, "half of it was written over");
        assert_eq!(message(&fatal, &stack(0, END)), None);
        assert_eq!(message(&named("main"), &stack(BEGIN, END)), None, "V8 has not ended it");
    }
}
