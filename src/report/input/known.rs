//! The frames of groups, which are most of a summary. Each file has those of a bug once more, if not each line: text that was parsed once is
//! compared the next time, which is ten times as fast.

use std::collections::HashMap;
use std::io::Write as _;

use memchr::memmem;

use super::frames::Frames;
use super::parse::{Parsed, SummaryLine, begins_with, parse, text};

/// How many texts are known at once, each of some KiB.
const TEXTS: usize = 2048;
/// What is before them in a line, as faultline writes it.
const FRAMES: &[u8] = b"\"frames\":";
const SIGNATURE: &[u8] = b"\"signature\":\"";

/// What was parsed before.
#[derive(Debug, Default)]
pub(in super::super) struct Known {
    /// By signature.
    texts: HashMap<Box<str>, Frames>,
    /// A line without the frames that are known, which are numbered.
    rest: Vec<u8>,
}

impl Known {
    /// What a line is, as [`parse`] says it.
    ///
    /// # Errors
    /// The errors of [`parse`].
    pub(in super::super) fn parse<'line>(&'line mut self, line: &'line [u8]) -> Result<Parsed<'line>, String> {
        if !begins_with(line, "summary") {
            return parse(line);
        }
        let found = self.cut(line);
        let Self { texts, rest } = self;
        let short = if found.is_empty() { None } else { parse(rest).ok() };
        let mut parsed = match short.and_then(|short| put_back(short, &found)) {
            Some(parsed) => parsed,
            // An error names its place in the line as it is.
            None => parse(line)?,
        };
        if let Parsed::Summary(summary) = &mut parsed {
            learn(texts, summary);
        }
        Ok(parsed)
    }

    /// Makes the rest of the line, with a number in place of each text that is known. Returns the texts.
    fn cut(&mut self, line: &[u8]) -> Vec<Frames> {
        let (mut found, mut done) = (Vec::new(), 0);
        self.rest.clear();
        for at in memmem::find_iter(line, FRAMES) {
            let begin = at + FRAMES.len();
            let known = line.get(done..at).and_then(signature_in).and_then(|signature| self.texts.get(signature));
            let Some(frames) = known else { continue };
            let end = begin + frames.text().len();
            // It is a value to its end: nothing follows that would belong to the number.
            if line[begin..].starts_with(frames.text().as_bytes()) && matches!(line.get(end), Some(b',' | b'}')) {
                self.rest.extend(&line[done..begin]);
                // A Vec takes all.
                let _ = write!(self.rest, "{}", found.len());
                found.push(frames.clone());
                done = end;
            }
        }
        if !found.is_empty() {
            self.rest.extend(&line[done..]);
        }
        found
    }
}

/// The last signature in a part of a line.
fn signature_in(part: &[u8]) -> Option<&str> {
    let begin = memmem::rfind(part, SIGNATURE)? + SIGNATURE.len();
    let end = begin + memchr::memchr(b'"', &part[begin..])?;
    std::str::from_utf8(&part[begin..end]).ok()
}

/// Gives each group with a number its frames. `None`: these are no numbers of ours.
fn put_back<'line>(mut parsed: Parsed<'line>, found: &[Frames]) -> Option<Parsed<'line>> {
    let Parsed::Summary(summary) = &mut parsed else { return None };
    let mut next = found.iter().enumerate();
    for group in summary.groups.iter_mut().flatten() {
        let Some(number) = group.raw_frames().and_then(|text| text.parse::<usize>().ok()) else { continue };
        match next.next() {
            Some((at, frames)) if at == number => group.known_frames = Some(frames.clone()),
            _ => return None,
        }
    }
    next.next().is_none().then_some(parsed)
}

/// Keeps the texts that are new.
fn learn(texts: &mut HashMap<Box<str>, Frames>, summary: &mut SummaryLine<'_>) {
    for group in summary.groups.iter_mut().flatten().filter(|group| group.known_frames.is_none()) {
        let Some(signature) = text(&group.signature) else { continue };
        if texts.len() >= TEXTS && !texts.contains_key(signature) {
            continue;
        }
        if let Some(frames) = group.raw_frames().and_then(Frames::of) {
            texts.insert(signature.into(), frames.clone());
            group.known_frames = Some(frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(groups: &[(&str, &str)]) -> String {
        let group = |(signature, frames): &(&str, &str)| {
            format!(
                r#"{{"signature":"{signature}","signal":"SIGSEGV","code":null,"disposition":"fatal","comm":"a","exe":null,"count":2,"first_seen":"2026-01-01T00:00:10Z","last_seen":"2026-01-01T00:00:20Z","frames":{frames},"cpus":{{"3":2}}}}"#
            )
        };
        let groups: Vec<String> = groups.iter().map(group).collect();
        let head = r#"{"type":"summary","schema":1,"timestamp":"2026-01-01T00:01:00Z","host":"a","since":"2026-01-01T00:00:00Z","interval_seconds":60.0,"boot_id":null"#;
        format!(r#"{head},"groups":[{}],"deliveries":{{"matched":2,"filtered":0}},"losses":{{}}}}"#, groups.join(","))
    }

    fn frames(symbol: &str) -> String {
        format!(r#"[{{"address":null,"symbol":"{symbol}","inlined":false}}]"#)
    }

    /// The symbol of each group's frame, and how much shorter the line was that serde_json has seen; 0: as long as it is.
    fn symbols(known: &mut Known, line: &str) -> (Vec<Option<String>>, usize) {
        let Ok(Parsed::Summary(summary)) = known.parse(line.as_bytes()) else { panic!("{line}") };
        let symbol = |frames: Frames| frames.parse().first().and_then(|frame| frame.symbol.clone());
        let symbols = summary.groups.iter().flatten().map(|group| group.frames().and_then(symbol)).collect();
        drop(summary);
        let seen = if known.rest.is_empty() { line.len() } else { known.rest.len() };
        (symbols, line.len() - seen)
    }

    #[test]
    fn known_frames_are_not_parsed_again_and_are_the_same() {
        let mut known = Known::default();
        let (f, g) = (frames("f"), frames("g"));
        let both = line(&[("1", &f), ("2", &g)]);
        let names = |names: &[&str]| names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>();
        assert_eq!(symbols(&mut known, &both), (names(&["f", "g"]), 0));
        assert_eq!(symbols(&mut known, &both), (names(&["f", "g"]), f.len() + g.len() - 2));
        let turned = line(&[("2", &f), ("2", &g), ("1", &f)]);
        assert_eq!(symbols(&mut known, &turned), (names(&["f", "g", "f"]), f.len() + g.len() - 2), "the first is new");
        let (none, mut expected) = (line(&[("3", "null"), ("1", &f)]), names(&["", "f"]));
        expected[0] = None;
        assert_eq!(symbols(&mut known, &none), (expected, f.len() - 1));
    }

    #[test]
    fn a_number_of_somebody_elses_names_nothing() {
        let mut known = Known::default();
        let f = frames("f");
        symbols(&mut known, &line(&[("1", &f)]));
        let forged = line(&[("2", "0"), ("1", &f)]);
        assert_eq!(symbols(&mut known, &forged).0, [None, Some("f".to_owned())]);
        let forged = line(&[("1", &f), ("2", "0")]);
        assert_eq!(symbols(&mut known, &forged).0, [Some("f".to_owned()), None]);
    }

    #[test]
    fn an_error_is_that_of_the_line() {
        let mut known = Known::default();
        let f = frames("f");
        symbols(&mut known, &line(&[("1", &f)]));
        for wrong in [line(&[("1", &f)]).replace("\"cpus\"", "cpus"), line(&[("1", &format!("{f}1"))])] {
            assert_eq!(known.parse(wrong.as_bytes()).unwrap_err(), parse(wrong.as_bytes()).unwrap_err());
        }
    }
}
