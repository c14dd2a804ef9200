//! Parses a line: of the records of faultline, a report needs summaries, and what crash records say of a bug.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::frames::Frames;
use crate::output::{SCHEMA, Timestamp};
use crate::record::crash::Disposition;
use crate::record::summary::Deliveries;

/// What a line is.
#[derive(Debug)]
pub(in super::super) enum Parsed<'line> {
    /// Groups and their counts, or (a heartbeat) that there were none.
    Summary(Box<SummaryLine<'line>>),
    /// One crash.
    Crash(CrashLine<'line>),
    /// Another record.
    Other,
    /// An empty line.
    Nothing,
}

/// The fields that say what kind a record is of; the others are looked at only if it is needed.
#[derive(Deserialize)]
struct Head<'line> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'line, str>,
    schema: Option<u32>,
}

/// A summary as it is read: [`crate::record::summary::Summary`] is how it is written. Text that has no escapes is not copied.
#[derive(Debug, Deserialize)]
pub(in super::super) struct SummaryLine<'line> {
    /// The end of the interval.
    pub timestamp: Timestamp,
    #[serde(borrow)]
    pub host: Cow<'line, str>,
    /// When counting began; a heartbeat doesn't say it.
    pub since: Option<Timestamp>,
    /// The interval's length.
    pub interval_seconds: f64,
    pub boot_id: Option<Text<'line>>,
    /// `None`: a heartbeat.
    pub groups: Option<Vec<GroupLine<'line>>>,
    /// The last part of a summary has it.
    pub deliveries: Option<Deliveries>,
    /// By reason.
    #[serde(default, deserialize_with = "or_none")]
    pub losses: Counts<'line>,
    /// By reason.
    #[serde(default, deserialize_with = "or_none")]
    pub sample_losses: Counts<'line>,
    /// Which line of an interval that has several; `None`: it has one.
    pub part: Option<u32>,
    /// How many lines it has.
    pub parts: Option<u32>,
}

/// A group as it is read.
#[derive(Debug, Deserialize)]
pub(in super::super) struct GroupLine<'line> {
    pub signature: Option<Text<'line>>,
    pub family: Option<Text<'line>>,
    /// The split of a coarse count is not exact.
    #[serde(default)]
    pub estimated: bool,
    #[serde(borrow)]
    pub signal: Cow<'line, str>,
    pub code: Option<Text<'line>>,
    pub disposition: Disposition,
    #[serde(borrow)]
    pub comm: Cow<'line, str>,
    #[serde(default, deserialize_with = "said", borrow)]
    exe: Said<'line>,
    #[serde(default, deserialize_with = "said", borrow)]
    build_id: Said<'line>,
    /// In this interval.
    pub count: u64,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// What libc said before an abort.
    pub abort_message: Option<Text<'line>>,
    /// The likely cause.
    pub diagnosis: Option<DiagnosisLine<'line>>,
    /// Looked at only if nobody else had them: most of a summary is frames.
    #[serde(borrow)]
    frames: Option<&'line RawValue>,
    /// They were parsed in an earlier line.
    #[serde(skip)]
    pub(super) known_frames: Option<Frames>,
    /// What isn't said is said in an earlier line of the file, that with the frames of this signature.
    #[serde(default)]
    pub frames_in_file: bool,
    /// That line isn't known (yet): where it is to be found.
    #[serde(skip)]
    pub open_at: Option<u64>,
    /// `count` by processor.
    #[serde(default)]
    pub cpus: Processors,
}

/// What a group may leave out; the outer `None`: it does.
type Said<'line> = Option<Option<Text<'line>>>;

fn said<'de: 'line, 'line, D: Deserializer<'de>>(from: D) -> Result<Said<'line>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// `null` stands for none.
fn or_none<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// An executable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in super::super) struct Executable {
    /// Its path.
    pub exe: Option<String>,
    pub build_id: Option<String>,
}

impl GroupLine<'_> {
    /// The executable's path.
    pub(in super::super) fn exe(&self) -> Option<&str> {
        text(self.exe.as_ref()?)
    }

    /// The executable's build id.
    pub(in super::super) fn build_id(&self) -> Option<&str> {
        text(self.build_id.as_ref()?)
    }

    /// What it says of its executable.
    pub(in super::super) fn executable(&self) -> Executable {
        let owned = |text: &str| text.to_owned();
        Executable { exe: self.exe().map(owned), build_id: self.build_id().map(owned) }
    }

    /// Does it say the path, and the build id? It leaves out what is as in the earlier line.
    pub(in super::super) fn says(&self) -> [bool; 2] {
        [self.exe.is_some(), self.build_id.is_some()]
    }

    /// Is it of this one?
    pub(in super::super) fn is_of(&self, executable: &Executable) -> bool {
        self.exe() == executable.exe.as_deref() && self.build_id() == executable.build_id.as_deref()
    }

    /// Says what it has left out, which the earlier line says.
    pub(in super::super) fn complete(&mut self, earlier: &Executable) {
        let owned = |text: &Option<String>| text.clone().map(|text| Text(Cow::Owned(text)));
        self.exe.get_or_insert_with(|| owned(&earlier.exe));
        self.build_id.get_or_insert_with(|| owned(&earlier.build_id));
    }

    /// The frames; `None`: there are none.
    pub(in super::super) fn frames(&self) -> Option<Frames> {
        self.known_frames.clone().or_else(|| Frames::of(self.raw_frames()?))
    }

    /// The frames as they stand there.
    pub(super) fn raw_frames(&self) -> Option<&str> {
        self.frames.map(RawValue::get)
    }
}

/// What a crash record says of its bug.
#[derive(Debug, Deserialize)]
pub(in super::super) struct CrashLine<'line> {
    pub timestamp: Timestamp,
    #[serde(borrow)]
    pub signature: Option<Text<'line>>,
    pub family: Option<Text<'line>>,
    pub abort_message: Option<Text<'line>>,
    pub diagnosis: Option<DiagnosisLine<'line>>,
}

/// The sentence of a diagnosis.
#[derive(Debug, Deserialize)]
pub(in super::super) struct DiagnosisLine<'line> {
    #[serde(borrow)]
    pub text: Cow<'line, str>,
}

/// Text of the line, or made of it where it has escapes. (A derived `Option<Cow>` would always copy.)
#[derive(Debug)]
pub(in super::super) struct Text<'line>(pub Cow<'line, str>);

impl<'line, 'de: 'line> Deserialize<'de> for Text<'line> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrowing)
    }
}

/// The text of an optional field.
pub(in super::super) fn text<'a>(of: &'a Option<Text<'_>>) -> Option<&'a str> {
    of.as_ref().map(|text| &*text.0)
}

/// Numbers by name.
#[derive(Debug, Default)]
pub(in super::super) struct Counts<'line>(pub Vec<(Cow<'line, str>, u64)>);

/// Numbers by processor.
#[derive(Debug, Default)]
pub(in super::super) struct Processors(pub Vec<(u32, u64)>);

impl<'line, 'de: 'line> Deserialize<'de> for Counts<'line> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(from.deserialize_map(Pairs)?.into_iter().map(|(Text(name), count)| (name, count)).collect()))
    }
}

impl<'de> Deserialize<'de> for Processors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let pairs = from.deserialize_map(Pairs)?.into_iter();
        let number = |(Text(name), count): (Text<'_>, u64)| {
            name.parse().map(|cpu| (cpu, count)).map_err(|_| D::Error::custom(format!("`{name}` is no processor")))
        };
        Ok(Self(pairs.map(number).collect::<Result<_, _>>()?))
    }
}

/// Reads a map into a list, in its order.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(Text<'de>, u64)>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a map of numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// What a record of ours begins with.
pub(super) fn begins_with(line: &[u8], kind: &str) -> bool {
    let rest = line.strip_prefix(b"{\"type\":\"").and_then(|rest| rest.strip_prefix(kind.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b"\",\"schema\":1,"))
}

/// Is a line that can't be parsed a record of ours all the same, cut off or damaged?
pub(in super::super) fn is_damaged(line: &[u8]) -> bool {
    line.starts_with(b"{\"type\":\"") || serde_json::from_slice(line).is_ok_and(|head: Head| head.schema.is_some())
}

/// What a line is.
///
/// # Errors
/// Why the line is no record, in a few words that may contain parts of it: escape them.
pub(in super::super) fn parse(line: &[u8]) -> Result<Parsed<'_>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(Parsed::Nothing);
    }
    // As faultline writes it. A shipper may have sorted the fields: then the kind must be looked for.
    if begins_with(line, "summary") {
        return summary(line, false);
    }
    if begins_with(line, "crash") {
        return crash(line);
    }
    let head: Head = serde_json::from_slice(line).map_err(|error| reason(&error))?;
    if !matches!(&*head.kind, "summary" | "heartbeat" | "crash") {
        return Ok(Parsed::Other);
    }
    if head.schema != Some(SCHEMA) {
        let schema = head.schema.map_or_else(|| "unknown".to_owned(), |schema| schema.to_string());
        return Err(format!("schema {schema}, this faultline reads {SCHEMA}"));
    }
    match &*head.kind {
        "crash" => crash(line),
        kind => summary(line, kind == "heartbeat"),
    }
}

fn summary(line: &[u8], is_heartbeat: bool) -> Result<Parsed<'_>, String> {
    let summary: SummaryLine = serde_json::from_slice(line).map_err(|error| reason(&error))?;
    if summary.interval_seconds < 0.0 {
        return Err(format!("an interval of {} seconds", summary.interval_seconds));
    }
    for (is_missing, field) in [(summary.groups.is_none(), "groups"), (summary.since.is_none(), "since")] {
        if is_missing && !is_heartbeat {
            return Err(format!("missing field `{field}`"));
        }
    }
    if summary.deliveries.is_none() && summary.is_last_part() {
        return Err("missing field `deliveries`".to_owned());
    }
    Ok(Parsed::Summary(Box::new(summary)))
}

fn crash(line: &[u8]) -> Result<Parsed<'_>, String> {
    serde_json::from_slice(line).map(Parsed::Crash).map_err(|error| reason(&error))
}

impl SummaryLine<'_> {
    /// Is it the last line of its interval, or the only one? That one has the interval's sums.
    pub(in super::super) fn is_last_part(&self) -> bool {
        self.part.unwrap_or(1) >= self.parts.unwrap_or(1)
    }
}

/// Why a line is no record. serde_json counts lines in its input, which is one line here.
pub(crate) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string().replace(" at line 1 column ", " at column ");
    if error.is_eof() { format!("cut off: {text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_records_and_empty_lines_are_passed_over() {
        for line in ["", " \r"] {
            assert!(matches!(parse(line.as_bytes()), Ok(Parsed::Nothing)), "{line}");
        }
        for line in [r#"{"type":"fork","schema":1}"#, r#"{"schema":9,"type":"\u0073ignal","a":[{}]}"#] {
            assert!(matches!(parse(line.as_bytes()), Ok(Parsed::Other)), "{line}");
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

    const SUMMARY: &str = r#"{"type":"summary","schema":1,"timestamp":"2026-01-01T00:01:00Z","host":"a","since":"2026-01-01T00:00:00Z","interval_seconds":60.0,"kernel":"6.18","boot_id":null,"final":false,"groups":[{"signature":"12","signal":"SIGSEGV","code":null,"disposition":"fatal","comm":"a\tb","exe":null,"count":2,"total":2,"first_seen":"2026-01-01T00:00:10Z","last_seen":"2026-01-01T00:00:20Z","last_pid":1,"frames":[{"address":null,"symbol":"f","inlined":false}],"cpus":{"3":2}}],"deliveries":{"matched":2,"filtered":0},"losses":{"x":0},"sample_losses":{}}"#;

    #[test]
    fn a_summary_is_read_whatever_the_order_of_its_fields() {
        let sorted = serde_json::from_str::<serde_json::Value>(SUMMARY).unwrap().to_string();
        assert!(!sorted.starts_with("{\"type\""), "{sorted}");
        for line in [SUMMARY, &sorted] {
            let Ok(Parsed::Summary(summary)) = parse(line.as_bytes()) else { panic!("{line}") };
            let group = &summary.groups.as_ref().unwrap()[0];
            assert_eq!((text(&group.signature), &*group.comm, group.count), (Some("12"), "a\tb", 2));
            assert_eq!(group.cpus.0, [(3, 2)]);
            let frames = group.frames().unwrap();
            assert!(frames.are_named && frames.parse()[0].symbol.as_deref() == Some("f"));
        }
    }

    #[test]
    fn a_heartbeat_is_a_summary_without_groups() {
        let line = r#"{"type":"heartbeat","schema":1,"timestamp":"2026-01-01T00:01:00Z","host":"a","interval_seconds":60,"boot_id":"b","deliveries":{"matched":0,"filtered":0},"losses":{}}"#;
        let Ok(Parsed::Summary(summary)) = parse(line.as_bytes()) else { panic!("{line}") };
        assert!(summary.groups.is_none() && summary.is_last_part());
        assert_eq!(parse(line.replace("heartbeat", "summary").as_bytes()).unwrap_err(), "missing field `groups`");
    }

    #[test]
    fn a_processor_is_a_number() {
        let wrong = SUMMARY.replace("{\"3\":2}", "{\"three\":2}");
        assert!(parse(wrong.as_bytes()).unwrap_err().starts_with("`three` is no processor"));
    }
}
