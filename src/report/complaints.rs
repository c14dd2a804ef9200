//! What was wrong with the lines, on standard error. In a file of another kind every line is wrong, so that only the first ones are shown.

use crate::output::escape;
use crate::text::counted;

/// How many wrong lines are reported one by one.
const SHOWN: u64 = 20;
/// How much of a reason is shown: it may contain the whole line.
const REASON_CHARS: usize = 160;

/// The wrong lines.
#[derive(Default)]
pub(crate) struct Complaints {
    lines: u64,
    /// Summaries that were merged before.
    pub duplicates: u64,
    skipped: u64,
}

/// A reason as it is shown.
pub(super) fn short(why: &str) -> String {
    escape(&why.chars().take(REASON_CHARS).collect::<String>())
}

impl Complaints {
    /// Says what is wrong with a line.
    pub(super) fn say(&mut self, file: &str, line: u64, what: &str) {
        self.lines += 1;
        if self.lines <= SHOWN {
            say!("faultline: {}:{line}: {what}", escape(file));
        }
    }

    /// A line was skipped; `why` may have parts of the line in it.
    pub(crate) fn skipped(&mut self, file: &str, line: u64, why: &str) {
        self.skipped += 1;
        self.say(file, line, &format!("skipped: {}", short(why)));
    }

    /// How many lines were skipped.
    pub(crate) fn skipped_lines(&self) -> u64 {
        self.skipped
    }

    /// The sums of all that was wrong. `what` lacks the lines that were skipped.
    pub(crate) fn end(&self, what: &str) {
        if self.lines > SHOWN {
            say!("faultline: {}", counted(self.lines - SHOWN, "more such line"));
        }
        if self.duplicates != 0 {
            say!("faultline: {} skipped: the same summaries were merged before", counted(self.duplicates, "duplicate"));
        }
        if self.skipped != 0 {
            say!(
                "faultline: {} skipped, so that {what} lacks what was in {} (exit status 1): copy files again that are cut off or \
                 damaged, and give no files of other programs",
                counted(self.skipped, "line"),
                if self.skipped == 1 { "it" } else { "them" }
            );
        }
    }
}
