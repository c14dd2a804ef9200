//! A line of a file: the crash record that it is, and what is wrong with it. Most lines are other records, which are passed over without
//! a look at their fields.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::output::{SCHEMA, Timestamp};
use crate::record::crash::Disposition;
use crate::report::reason;

/// What a record of ours begins with, and a crash record. In a string of JSON the quotes have backslashes: none of it can hold these.
const RECORD: &[u8] = b"{\"type\":\"";
const CRASH: &[u8] = b"{\"type\":\"crash\",";

/// What a list shows of a record, and what it is chosen by.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'line> {
    schema: u32,
    pub timestamp: Timestamp,
    #[serde(borrow)]
    pub host: Cow<'line, str>,
    pub pid: u32,
    pub uid: u32,
    pub comm: Cow<'line, str>,
    pub exe: Option<Cow<'line, str>>,
    pub signal: Cow<'line, str>,
    pub signal_number: u32,
    pub disposition: Disposition,
    pub signature: Cow<'line, str>,
    pub family: Option<Cow<'line, str>>,
    pub instruction_symbol: Option<Cow<'line, str>>,
    /// The frames, which only a row that is shown parses; `None` means that there are none.
    #[serde(borrow)]
    pub stack_trace: Option<&'line RawValue>,
}

/// A crash record.
#[derive(Debug)]
pub(super) struct Found<'line> {
    pub line: Line<'line>,
    /// The whole of it.
    pub text: &'line str,
}

/// What is in a line.
#[derive(Debug, Default)]
pub(super) struct ReadLine<'line> {
    pub found: Option<Found<'line>>,
    /// Why something of it could not be read; it may have parts of the line in it.
    pub damage: Option<String>,
}

/// What is in a line: a record, however little of another one stands before it. When a machine goes down in the middle of a line, what
/// is written next goes on behind the half line, or behind zeros.
pub(super) fn read(line: &[u8]) -> ReadLine<'_> {
    let line = line.trim_ascii();
    match parse(line) {
        Ok(found) => ReadLine { found, damage: None },
        Err(why) => {
            let behind = memmem::rfind(line, CRASH).filter(|at| *at > 0).and_then(|at| line.get(at..));
            ReadLine { found: behind.and_then(|line| parse(line).ok()).flatten(), damage: Some(why) }
        }
    }
}

/// `None` means that it is none of a crash.
fn parse(line: &[u8]) -> Result<Option<Found<'_>>, String> {
    #[derive(Deserialize)]
    struct Head<'line> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'line, str>,
    }
    let is_crash = match line {
        b"" => false,
        _ if line.starts_with(CRASH) => true,
        // Other records are not needed, and nearly all lines are summaries.
        _ if line.starts_with(RECORD) && line.ends_with(b"}") && memmem::find(line, CRASH).is_none() => false,
        // A shipper may have sorted the fields.
        _ => serde_json::from_slice::<Head>(line).map_err(|error| reason(&error))?.kind == "crash",
    };
    if !is_crash {
        return Ok(None);
    }
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let line: Line = serde_json::from_str(text).map_err(|error| reason(&error))?;
    if line.schema != SCHEMA {
        return Err(format!("schema {}, this faultline reads {SCHEMA}", line.schema));
    }
    Ok(Some(Found { line, text }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A crash record, as far as a list needs it.
    pub(in super::super) const LINE: &str = r#"{"type":"crash","schema":1,"timestamp":"2026-11-29T18:19:07.123456Z","host":"web-1","pid":1234,"tid":1240,"ppid":1,"comm":"my\"app","exe":"/usr/bin/myapp (deleted)","uid":1000,"signal":"SIGSEGV","signal_number":11,"disposition":"fatal","stack_trace":[{"symbol":"main+0x10"}],"signature":"0123456789abcdef","family":"fedcba9876543210","instruction_symbol":"main+0x10","new":{"a":[1]}}"#;

    fn pid(line: &[u8]) -> (Option<u32>, Option<String>) {
        let read = read(line);
        (read.found.map(|found| found.line.pid), read.damage)
    }

    #[test]
    fn other_records_and_empty_lines_are_passed_over() {
        for line in ["", " \r", r#"{"type":"summary","schema":1,"groups":[]}"#, r#"{"a":{"b":1},"type":"fork"}"#] {
            assert_eq!(pid(line.as_bytes()), (None, None), "{line}");
        }
    }

    #[test]
    fn a_crash_is_found_whatever_the_order_of_its_fields() {
        let sorted = serde_json::from_str::<serde_json::Value>(LINE).unwrap().to_string();
        assert!(!sorted.starts_with("{\"type\""), "{sorted}");
        for line in [LINE, &sorted, &format!("{LINE}\r")] {
            assert_eq!(pid(line.as_bytes()), (Some(1234), None), "{line}");
        }
    }

    #[test]
    fn a_record_behind_a_damaged_one_is_found_and_the_damage_told() {
        for damaged in ["\0\0\0\0", r#"{"type":"summary","schema":1,"gro"#, &LINE[..200], r#"{"type":"heartbeat"}"#] {
            let (found, damage) = pid(format!("{damaged}{LINE}").as_bytes());
            assert!(found == Some(1234) && damage.is_some(), "{damaged}: {damage:?}");
        }
    }

    #[test]
    fn what_is_damaged_is_told() {
        for (line, why) in [
            (&LINE.as_bytes()[..200], "cut off: EOF while parsing a string at column 200"),
            (br#"{"type":"summary","schema":1,"gro"#, "cut off: EOF while parsing a string at column 33"),
            (b"SUMMARY", "expected value at column 1"),
            (b"{}", "missing field `type` at column 2"),
            (b"{\"type\":\"crash\",\"comm\":\"\xff\"}", "not UTF-8"),
            (LINE.replace("\"schema\":1", "\"schema\":2").as_bytes(), "schema 2, this faultline reads 1"),
            (LINE.replace("\"pid\":1234,", "").as_bytes(), "missing field `pid` at column 372"),
        ] {
            let (found, damage) = pid(line);
            assert_eq!((found, damage.as_deref()), (None, Some(why)));
        }
    }
}
