//! Which records were asked for.

use super::line::Line;
use crate::output::Timestamp;
use crate::time::Period;

/// Which records; what is empty or `None` leaves none out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// One of these.
    pub which: Which,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub before: Option<Timestamp>,
    /// The crash was by one of these signals.
    pub signals: Vec<u32>,
    /// One of these executables crashed: a path, or the name of a file or a process.
    pub executables: Vec<String>,
}

/// What `faultline show` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Which {
    /// Any.
    #[default]
    Any,
    /// The crashes with this signature or family, in lower case.
    Bug(String),
    /// The crashes of this process.
    Pid(u32),
    /// The crashes in this time.
    In(Period),
}

impl Which {
    /// `last`, a signature, a PID or a time.
    ///
    /// # Errors
    /// One line that says what is accepted.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if text == "last" {
            Ok(Self::Any)
        } else if let Ok(signature) = signature(text) {
            Ok(Self::Bug(signature))
        } else if is_number {
            text.parse().map(Self::Pid).map_err(|_| format!("`{text}` is no PID"))
        } else {
            Period::parse(text).map(Self::In).map_err(|_| {
                format!(
                    "`{text}` is no signature, no PID and no time: give one as 0123456789abcdef, 1234, `2026-11-29 18:19:07`, `18:19` or \
                     last; a FILE comes behind it, as in `faultline show last {text}`"
                )
            })
        }
    }
}

/// A signature or family as records have it: 16 hexadecimal digits.
///
/// # Errors
/// If it is none.
pub(crate) fn signature(text: &str) -> Result<String, String> {
    if text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a signature has 16 hexadecimal digits".to_owned())
    }
}

impl Selection {
    /// Was this record asked for?
    pub(super) fn has(&self, line: &Line<'_>) -> bool {
        let is_which = match &self.which {
            Which::Any => true,
            Which::Bug(name) => line.signature == *name || line.family.as_deref() == Some(name),
            Which::Pid(pid) => line.pid == *pid,
            Which::In(period) => (period.begin..period.end).contains(&line.timestamp),
        };
        is_which
            && self.since.is_none_or(|since| line.timestamp >= since)
            && self.before.is_none_or(|before| line.timestamp < before)
            && (self.signals.is_empty() || self.signals.contains(&line.signal_number))
            && (self.executables.is_empty() || self.executables.iter().any(|wanted| is_of(line, wanted)))
    }

    /// No record from before this is of interest.
    pub(super) fn begin(&self) -> Option<Timestamp> {
        let period = match &self.which {
            Which::In(period) => Some(period.begin),
            _ => None,
        };
        self.since.into_iter().chain(period).max()
    }
}

fn is_of(line: &Line<'_>, wanted: &str) -> bool {
    let path = line.exe.as_deref().map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    if wanted.contains('/') {
        return path == Some(wanted);
    }
    line.comm == wanted || path.and_then(|path| path.rsplit('/').next()) == Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::LINE;
    use super::*;

    fn moment(text: &str) -> Timestamp {
        serde_json::from_str(&format!("\"{text}\"")).unwrap()
    }

    #[test]
    fn what_show_is_given_says_what_it_is() {
        assert_eq!(Which::parse("last"), Ok(Which::Any));
        assert_eq!(Which::parse("0123456789ABCDEF"), Ok(Which::Bug("0123456789abcdef".to_owned())));
        assert_eq!(
            Which::parse("1234567890123456"),
            Ok(Which::Bug("1234567890123456".to_owned())),
            "no PID is so long"
        );
        assert_eq!(Which::parse("1234"), Ok(Which::Pid(1234)));
        assert!(matches!(Which::parse("2026-11-29 18:19"), Ok(Which::In(_))));
        assert_eq!(Which::parse("99999999999"), Err("`99999999999` is no PID".to_owned()));
        assert!(
            Which::parse("a.jsonl")
                .unwrap_err()
                .contains("a FILE comes behind it, as in `faultline show last a.jsonl`")
        );
    }

    #[test]
    fn each_filter_leaves_out_what_was_not_asked_for() {
        let line: Line = serde_json::from_str(LINE).unwrap();
        let has = |selection: Selection| selection.has(&line);
        let of = |which: &str| Selection { which: Which::parse(which).unwrap(), ..Selection::default() };
        assert!(has(Selection::default()));
        for (which, wanted) in [
            ("0123456789abcdef", true),
            ("fedcba9876543210", true),
            ("0000000000000000", false),
            ("1234", true),
            ("1240", false),
            ("2026-11-29 18:19:07", true),
            ("2026-11-29 18:19:08", false),
            ("2026-11-29T18:19:07.123456Z", true),
        ] {
            assert_eq!(has(of(which)), wanted, "{which}");
        }
        let at = moment("2026-11-29T18:19:07.123456Z");
        assert!(has(Selection { since: Some(at), ..Selection::default() }));
        assert!(!has(Selection { before: Some(at), ..Selection::default() }));
        assert!(!has(Selection { since: Some(moment("2026-11-29T18:19:08Z")), ..Selection::default() }));
        assert!(has(Selection { signals: vec![6, 11], ..Selection::default() }));
        assert!(!has(Selection { signals: vec![6], ..Selection::default() }));
        for (name, wanted) in
            [("myapp", true), ("/usr/bin/myapp", true), ("my\"app", true), ("/bin/myapp", false), ("my", false)]
        {
            assert_eq!(has(Selection { executables: vec![name.to_owned()], ..Selection::default() }), wanted, "{name}");
        }
    }

    #[test]
    fn the_later_begin_is_the_one() {
        let (early, late) = (moment("2026-01-01T00:00:00Z"), moment("2026-11-29T18:19:00Z"));
        let selection =
            Selection { which: Which::parse("2026-11-29 18:19").unwrap(), since: Some(early), ..Selection::default() };
        assert_eq!(selection.begin(), Some(late));
        assert_eq!(Selection::default().begin(), None);
    }
}
