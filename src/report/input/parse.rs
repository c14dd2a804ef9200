//! Parses a line.

use std::borrow::Cow;

use serde::Deserialize;

use crate::output::SCHEMA;
use crate::record;
use crate::record::summary::Summary;

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
pub(in super::super) fn parse(line: &[u8]) -> Result<Option<Summary>, String> {
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
