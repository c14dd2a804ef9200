//! Reads the lines of a file, one at a time and none of them too long, and parses them. Files come from many hosts and may have been
//! cut, doubled or mixed on the way: a line that can't be read is reported, and never stops the rest.

use std::borrow::Cow;
use std::io::{self, BufRead, ErrorKind};

use serde::Deserialize;

use crate::output::SCHEMA;
use crate::record;
use crate::record::summary::Summary;

/// A longer line is damaged: 4096 groups (a full kernel table) with 16 frames each have about this length.
pub(super) const LONGEST_LINE: usize = 16 << 20;

/// One line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'lines> {
    /// All of it.
    Whole(&'lines [u8]),
    /// It was skipped, and is not kept.
    TooLong,
}

/// Reads line by line, and holds one line.
pub(super) struct Lines<R> {
    from: R,
    longest: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `longest` bytes.
    pub(super) fn new(from: R, longest: usize) -> Self {
        Self { from, longest, line: Vec::new() }
    }

    /// The next line; `None` means the end.
    ///
    /// # Errors
    /// If reading fails.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut began = false;
        let mut too_long = false;
        loop {
            let chunk = match self.from.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                break;
            }
            began = true;
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            too_long |= self.line.len() + part.len() > self.longest;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(chunk.len(), |at| at + 1);
            self.from.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok(match (began, too_long) {
            (false, _) => None,
            (true, true) => Some(Line::TooLong),
            (true, false) => Some(Line::Whole(&self.line)),
        })
    }
}

/// The fields that say what kind a record is of; the others are looked at only in summaries.
#[derive(Deserialize)]
struct Head<'line> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'line, str>,
    schema: Option<u32>,
}

/// The summary in a line; `None` means another record, or an empty line.
///
/// # Errors
/// Why the line is no record, in a few words that may contain parts of it: escape them.
pub(super) fn parse(line: &[u8]) -> Result<Option<Summary>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let head: Head = serde_json::from_slice(line).map_err(|error| reason(&error))?;
    if head.kind != Summary::KIND {
        return Ok(None);
    }
    if head.schema != Some(SCHEMA) {
        let schema = head.schema.map_or_else(|| "unknown".to_owned(), |schema| schema.to_string());
        return Err(format!("schema {schema}, this faultline reads {SCHEMA}"));
    }
    let summary: Summary = serde_json::from_slice(line).map_err(|error| {
        // The fields that all records have are looked at last, and stand first.
        reason(&serde_json::from_slice::<record::Head>(line).err().unwrap_or(error))
    })?;
    if summary.interval.interval_seconds < 0.0 {
        return Err(format!("an interval of {} seconds", summary.interval.interval_seconds));
    }
    Ok(Some(summary))
}

/// serde_json counts lines in its input, which is one line here.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string().replace(" at line 1 column ", " at column ");
    if error.is_eof() { format!("cut off: {text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// All lines as text, read in chunks of 3 bytes, at most 8 bytes each.
    fn lines(text: &str) -> Vec<String> {
        let mut lines = Lines::new(BufReader::with_capacity(3, text.as_bytes()), 8);
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            seen.push(match line {
                Line::Whole(line) => String::from_utf8(line.to_vec()).unwrap(),
                Line::TooLong => "TOO LONG".to_owned(),
            });
        }
        seen
    }

    #[test]
    fn lines_end_at_newlines_and_at_the_end() {
        assert!(lines("").is_empty());
        assert_eq!(lines("\n"), [""]);
        assert_eq!(lines("a\nbcd\n"), ["a", "bcd"]);
        assert_eq!(lines("abcdef\n\ncut"), ["abcdef", "", "cut"]);
    }

    #[test]
    fn a_long_line_is_read_over() {
        assert_eq!(lines("12345678\n123456789\n1\n"), ["12345678", "TOO LONG", "1"]);
        assert_eq!(lines("123456789"), ["TOO LONG"]);
    }

    #[test]
    fn other_records_and_empty_lines_are_passed_over() {
        for line in ["", " \r", r#"{"type":"crash","schema":1}"#, r#"{"schema":9,"type":"\u0073ignal","a":[{}]}"#] {
            assert!(parse(line.as_bytes()).unwrap().is_none(), "{line}");
        }
    }

    #[test]
    fn what_is_no_record_is_told() {
        for (line, why) in [
            (&br#"{"type":"crash","comm":"ng"#[..], "cut off: EOF while parsing a string at column 26"),
            (b"{}", "missing field `type` at column 2"),
            (b"SUMMARY", "expected value at column 1"),
            (b"\0\0\0", "expected value at column 1"),
            (br#"{"type":"summary","schema":2}"#, "schema 2, this faultline reads 1"),
            (br#"{"type":"summary"}"#, "schema unknown, this faultline reads 1"),
            (br#"{"type":"summary","schema":1}"#, "missing field `timestamp` at column 29"),
            (b"{\"type\":\"\xff\"}", "invalid unicode code point at column 10"),
        ] {
            assert_eq!(parse(line).unwrap_err(), why);
        }
    }
}
