//! Text that comes from watched processes, made safe to show.

use std::fmt::Write;

/// The bytes up to the first NUL, made valid UTF-8.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The bytes of a C string. For programs of the kernel a char has a sign, on every architecture.
pub(crate) fn bytes(chars: &[i8]) -> &[u8] {
    // SAFETY: an i8 is a byte, and the slice borrows the same bytes.
    unsafe { std::slice::from_raw_parts(chars.as_ptr().cast(), chars.len()) }
}

/// The name in a field of a sample, as [`lossy`].
pub(crate) fn name(chars: &[i8]) -> String {
    lossy(bytes(chars))
}

/// A number with its noun: `1 host`, `2 hosts`, `2 summaries`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if count == 1 => format!("1 {noun}"),
        Some(stem) => format!("{count} {stem}ies"),
        None => format!("{count} {noun}s"),
    }
}

/// Control characters as `\n`, `\x1b`, `\u{202e}`: a process's name must not move the cursor or forge a line.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            // Bidirectional controls reorder what follows them on a terminal.
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                safe.extend(c.escape_unicode());
            }
            c if c.is_control() => {
                let _ = write!(safe, "\\x{:02x}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// The same, but for the ends of lines and tabs.
pub(crate) fn escape_lines(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for part in text.split_inclusive(['\n', '\t']) {
        let kept = part.trim_end_matches(['\n', '\t']);
        safe.push_str(&escape(kept));
        safe.push_str(&part[kept.len()..]);
    }
    safe
}

/// A line of JSON with [`escape`] done to each of its strings, so that nothing of it has to be escaped when it is shown.
pub(crate) fn escape_strings(line: &str) -> String {
    let mut safe = String::with_capacity(line.len());
    let mut is_in_string = false;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                is_in_string = !is_in_string;
                safe.push(c);
            }
            '\\' if is_in_string => {
                let escaped = rest.next().unwrap_or_default();
                let (digits, number) = match escaped {
                    'u' => {
                        let digits: String = rest.by_ref().take(4).collect();
                        let number = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                        (digits, number)
                    }
                    'b' => (String::new(), Some(8)),
                    'f' => (String::new(), Some(12)),
                    'n' => (String::new(), Some(10)),
                    'r' => (String::new(), Some(13)),
                    't' => (String::new(), Some(9)),
                    _ => (String::new(), None),
                };
                match number.and_then(char::from_u32).map(|meant| (meant, escape(meant.encode_utf8(&mut [0; 4])))) {
                    Some((meant, shown)) if !shown.starts_with(meant) => safe.push_str(&shown.replace('\\', "\\\\")),
                    _ => safe.extend(['\\', escaped].into_iter().chain(digits.chars())),
                }
            }
            _ if is_in_string => safe.push_str(&escape(c.encode_utf8(&mut [0; 4])).replace('\\', "\\\\")),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_has_the_number_of_its_count() {
        assert_eq!([counted(0, "host"), counted(1, "host"), counted(2, "host")], ["0 hosts", "1 host", "2 hosts"]);
        assert_eq!([counted(1, "summary"), counted(2, "summary")], ["1 summary", "2 summaries"]);
    }

    #[test]
    fn names_end_at_their_nul() {
        assert_eq!(lossy(b"sleep\0\0junk"), "sleep");
        assert_eq!(lossy(b"sixteen bytes ok"), "sixteen bytes ok");
        assert_eq!(lossy(b"\xff\xfe\0"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn strings_of_json_have_their_control_characters_shown() {
        let texts =
            ["plain \"quoted\" C:\\n", "a\nb\r\t\u{8}\u{c}\u{1b}[2J", "\u{202e}x\u{7f}\u{85}", "na\u{ef}ve \u{1f980}"];
        let line = serde_json::to_string(&serde_json::json!({ "a\n": texts })).unwrap();
        for line in
            [line.replace("\":", "\" :\t"), line.replace('\u{ef}', "\\u00ef").replace('\u{1f980}', "\\ud83e\\udd80")]
        {
            let safe = escape_strings(&line);
            let read: serde_json::Value = serde_json::from_str(&safe).unwrap();
            assert_eq!(read, serde_json::json!({ "a\\n": texts.map(escape) }), "{safe}");
        }
        assert_eq!(escape_strings("\"cut \\u00"), "\"cut \\u00");
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(escape("a\nb\x1b[2J\u{202e}c"), "a\\nb\\x1b[2J\\u{202e}c");
        assert_eq!(escape("naïve \u{1f980}"), "naïve \u{1f980}");
        assert_eq!(escape_lines("a\x1b\n\n\tb\r\n"), "a\\x1b\n\n\tb\\r\n");
    }
}
