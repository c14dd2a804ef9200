//! Times as people type them: `2026-11-29 18:19:07`, `18:19`, `yesterday`, `2h ago`.

use jiff::civil::{DateTime, Time};
use jiff::{Span, ToSpan, Zoned};

use super::{Timestamp, zone};

/// The time that was meant: as long as what was typed is exact, a second where seconds were typed, a day where only a date was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    /// Its first moment.
    pub begin: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
}

impl Period {
    /// What was typed now, in the machine's time zone unless it names one.
    ///
    /// # Errors
    /// One line that says what is accepted.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::parse_at(text, &Zoned::now().with_time_zone(zone()))
    }

    /// What is up to this time is before this: a second that was typed counts whole, and a date is its midnight, as in journalctl.
    pub(crate) fn limit(self) -> Timestamp {
        const HOUR_NS: i128 = 3_600_000_000_000;
        if self.end.unix_ns() - self.begin.unix_ns() > HOUR_NS { self.begin } else { self.end }
    }

    fn parse_at(text: &str, now: &Zoned) -> Result<Self, String> {
        let text = text.trim();
        let found = match text {
            "now" => Ok((now.clone(), length(text))),
            "today" => now.start_of_day().map(|day| (day, 1.day())),
            "yesterday" => now.yesterday().and_then(|day| day.start_of_day()).map(|day| (day, 1.day())),
            _ => return Self::of_digits(text, now).ok_or_else(|| refusal(text)),
        };
        found.ok().and_then(|(begin, length)| Self::of(&begin, length)).ok_or_else(|| refusal(text))
    }

    fn of_digits(text: &str, now: &Zoned) -> Option<Self> {
        // With a zone of its own.
        if let Ok(begin) = text.parse::<jiff::Timestamp>() {
            return Self::of(&begin.to_zoned(zone()), length(text));
        }
        // A date alone is taken for its midnight.
        if let Ok(begin) = text.parse::<DateTime>() {
            let length = if text.contains(':') { length(text) } else { 1.day() };
            return Self::of(&begin.to_zoned(zone()).ok()?, length);
        }
        if let Ok(time) = text.parse::<Time>() {
            return Self::of(&now.date().to_datetime(time).to_zoned(zone()).ok()?, length(text));
        }
        let span: Span = text.parse().ok()?;
        // `2h`, `-2h` and `2h ago` are the same: nobody looks for crashes that are still to come.
        Self::of(&now.checked_sub(span.abs()).ok()?, length("::"))
    }

    fn of(begin: &Zoned, length: Span) -> Option<Self> {
        let end = begin.checked_add(length).ok()?;
        Some(Self { begin: Timestamp(begin.timestamp()), end: Timestamp(end.timestamp()) })
    }
}

/// How exact a time of the day is.
fn length(text: &str) -> Span {
    // The zone has colons, too.
    let time = text.split_once([' ', 'T', 't']).map_or(text, |(_, time)| time);
    let time = time.split(['Z', 'z', '+', '-', '[']).next().unwrap_or_default();
    match (time.contains('.'), time.matches(':').count()) {
        (true, _) => 1.microsecond(),
        (false, 1) => 1.minute(),
        _ => 1.second(),
    }
}

fn refusal(text: &str) -> String {
    format!("`{text}` is no time: give one as `2026-11-29 18:19:07`, `18:19`, `yesterday` or `2h ago`")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begin and end of what was typed on 2026-11-29 at 18:19:07.5 UTC.
    fn period(text: &str) -> Result<[String; 2], String> {
        let now: Zoned = "2026-11-29T18:19:07.5+00:00[UTC]".parse().unwrap();
        Period::parse_at(text, &now).map(|period| {
            [period.begin, period.end]
                .map(|moment| serde_json::to_string(&moment).unwrap().trim_matches('"').to_owned())
        })
    }

    #[test]
    fn what_was_typed_says_how_exact_it_is() {
        for (text, begin, end) in [
            ("2026-11-28 10:20:30", "2026-11-28T10:20:30.000000Z", "2026-11-28T10:20:31.000000Z"),
            ("2026-11-28T10:20", "2026-11-28T10:20:00.000000Z", "2026-11-28T10:21:00.000000Z"),
            ("2026-11-28T10:20:30.123456Z", "2026-11-28T10:20:30.123456Z", "2026-11-28T10:20:30.123457Z"),
            ("2026-11-28T10:20:30+02:00", "2026-11-28T08:20:30.000000Z", "2026-11-28T08:20:31.000000Z"),
            ("2026-11-28", "2026-11-28T00:00:00.000000Z", "2026-11-29T00:00:00.000000Z"),
            ("10:20", "2026-11-29T10:20:00.000000Z", "2026-11-29T10:21:00.000000Z"),
            ("10:20:30", "2026-11-29T10:20:30.000000Z", "2026-11-29T10:20:31.000000Z"),
            ("today", "2026-11-29T00:00:00.000000Z", "2026-11-30T00:00:00.000000Z"),
            ("yesterday", "2026-11-28T00:00:00.000000Z", "2026-11-29T00:00:00.000000Z"),
            ("now", "2026-11-29T18:19:07.500000Z", "2026-11-29T18:19:08.500000Z"),
            ("-2h", "2026-11-29T16:19:07.500000Z", "2026-11-29T16:19:08.500000Z"),
            ("2 hours ago", "2026-11-29T16:19:07.500000Z", "2026-11-29T16:19:08.500000Z"),
            ("3d", "2026-11-26T18:19:07.500000Z", "2026-11-26T18:19:08.500000Z"),
        ] {
            assert_eq!(period(text), Ok([begin, end].map(str::to_owned)), "{text}");
        }
        let limit = |text: &str| {
            Period::parse(text).map(|period| (period.limit() == period.begin, period.limit() == period.end))
        };
        assert_eq!((limit("2026-11-28"), limit("2026-11-28 10:20")), (Ok((true, false)), Ok((false, true))));
        for text in ["", "tomorrowish", "25:00", "2026-13-01", "9999999y", "a.jsonl", "2026-11-28 99:00"] {
            assert!(period(text).unwrap_err().contains("is no time"), "{text}");
        }
    }
}
