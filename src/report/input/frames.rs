//! The frames of a group as text, which most readings of it never parse.

use std::sync::Arc;

use memchr::memmem;

use crate::record::crash::Frame;

/// The frames of a group as they stand there: a report shows those of one group of each bug.
#[derive(Clone, Debug)]
pub(in super::super) struct Frames {
    text: Arc<str>,
    /// One of them has a name.
    pub are_named: bool,
}

impl Frames {
    /// The frames in this text; `None` means that there are none.
    pub(super) fn of(text: &str) -> Option<Self> {
        // What a symbol is not, is null.
        let has = |symbol: &str| memmem::find(text.as_bytes(), symbol.as_bytes()).is_some();
        let are_named = has("\"symbol\":\"") || has("\"symbol\": \"");
        (text.len() > 2 && text != "null").then(|| Self { text: text.into(), are_named })
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The frames; none if they can't be read.
    pub(in super::super) fn parse(&self) -> Vec<Frame> {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}
