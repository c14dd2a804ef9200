//! What a crash record or a group says of a bug in words: the earliest one that says anything.

use super::input::{CrashLine, DiagnosisLine, GroupLine, text};
use crate::output::Timestamp;

/// Each from one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// When it was said; `None`: never.
    at: Option<Timestamp>,
    /// What libc said before it aborted.
    pub abort_message: Option<String>,
    /// The likely cause.
    pub diagnosis: Option<String>,
}

impl Note {
    fn new(at: Timestamp, abort_message: Option<&str>, diagnosis: Option<&DiagnosisLine<'_>>) -> Self {
        let is_there = abort_message.is_some() || diagnosis.is_some();
        Self {
            at: is_there.then_some(at),
            abort_message: abort_message.map(str::to_owned),
            diagnosis: diagnosis.map(|diagnosis| diagnosis.text.to_string()),
        }
    }

    /// What a crash record says.
    pub(super) fn of_crash(crash: &CrashLine<'_>) -> Self {
        Self::new(crash.timestamp, text(&crash.abort_message), crash.diagnosis.as_ref())
    }

    /// What a group says.
    pub(super) fn of_group(group: &GroupLine<'_>) -> Self {
        Self::new(group.first_seen, text(&group.abort_message), group.diagnosis.as_ref())
    }

    /// Does it say nothing?
    pub(super) fn is_empty(&self) -> bool {
        self.at.is_none()
    }

    /// Keeps the earlier one, of two at the same time that of the smaller words: the order of reading makes no difference.
    pub(super) fn take(&mut self, other: Self) {
        let order = |note: &Self| (note.at, note.abort_message.clone(), note.diagnosis.clone());
        if !other.is_empty() && (self.is_empty() || order(&other) < order(self)) {
            *self = other;
        }
    }
}
