//! Names of code that a runtime has generated, from the map that it writes for perf: `/tmp/perf-PID.map`, lines of `START SIZE NAME`.
//!
//! The process itself says this about its memory: the map names code that is in no file, and has no part in signatures.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use crate::evidence::Function;
use crate::symbol::unwind::Frame;
use crate::text::lossy;

/// A longer map is not read: its end may take back what its beginning says.
const BYTES_MAX: u64 = 64 << 20;

/// The rest of a longer line is cut off.
const NAME_BYTES_MAX: usize = 1024;

/// The function of each of these frames. If several lines have an address, the last one is for the code that is there now.
pub(super) fn names(map: &File, frames: &[Frame]) -> Vec<Option<Function>> {
    let length = map.metadata().map_or(u64::MAX, |metadata| metadata.len());
    match length {
        ..=BYTES_MAX => read(map.take(length), frames),
        _ => vec![None; frames.len()],
    }
}

fn read(map: impl Read, frames: &[Frame]) -> Vec<Option<Function>> {
    let mut found: Vec<Option<Function>> = vec![None; frames.len()];
    let mut map = BufReader::with_capacity(1 << 18, map);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end may lack a part of its name.
        if map.read_until(b'\n', &mut line).is_err() || line.pop() != Some(b'\n') {
            return found;
        }
        let Some((start, bytes, name)) = entry(&line) else { continue };
        for (frame, found) in frames.iter().zip(&mut found) {
            let inside = frame.address.wrapping_sub(u64::from(frame.is_return_address));
            if inside.checked_sub(start).is_some_and(|offset| offset < bytes) {
                let name = lossy(name.get(..NAME_BYTES_MAX).unwrap_or(name));
                let offset = Some(frame.address.wrapping_sub(start));
                *found = Some(Function { name, offset, file: None, line: None, inlined: false });
            }
        }
    }
}

/// First address, length, and name. `None` means that it is no such line.
fn entry(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let mut number = || {
        let digits = std::str::from_utf8(parts.next()?).ok()?;
        u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
    };
    let (start, bytes) = (number()?, number()?);
    let name = parts.next()?.trim_ascii();
    (!name.is_empty()).then_some((start, bytes, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(map: &str, address: u64, is_return_address: bool) -> Option<String> {
        let found = read(map.as_bytes(), &[Frame { address, is_return_address }]);
        found.into_iter().next().flatten().map(|function| function.symbol())
    }

    #[test]
    fn an_address_has_the_name_of_its_line() {
        let map = "1000 10 first\n0x1010 0x20 JS:~second /a b.js:3:1\n2000 0 empty\n";
        assert_eq!(named(map, 0x1000, false).as_deref(), Some("first+0x0"));
        assert_eq!(named(map, 0x100f, false).as_deref(), Some("first+0xf"));
        assert_eq!(named(map, 0x1010, false).as_deref(), Some("JS:~second /a b.js:3:1+0x0"));
        assert_eq!(named(map, 0x1010, true).as_deref(), Some("first+0x10"), "the call is before it");
        for nowhere in [0xfff, 0x1030, 0x2000, 0, u64::MAX] {
            assert_eq!(named(map, nowhere, false), None, "{nowhere:#x}");
        }
    }

    #[test]
    fn code_that_was_moved_there_later_has_the_name() {
        let map = "1000 100 old\n1010 10 new\n";
        assert_eq!(named(map, 0x1018, false).as_deref(), Some("new+0x8"));
        assert_eq!(named(map, 0x1028, false).as_deref(), Some("old+0x28"));
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        let map = "nonsense\n1000\n1000 10\n1000 10 \nx 10 a\n1000 -1 b\n\nffffffffffffffff ffffffffffffffff end\n1000 10 good\n";
        assert_eq!(named(map, 0x1004, false).as_deref(), Some("good+0x4"));
        assert_eq!(named("1000 10 cut", 0x1004, false), None, "its name may go on");
        let long = format!("1000 10 {}\n", "x".repeat(5000));
        assert!(named(&long, 0x1004, false).unwrap().len() < 1100);
    }
}
