//! What comes out: the shapes of the records, as docs/output.md has them. A record is made once, when all is known, and nothing
//! takes it apart again. How one looks as text is said in [`crate::output`].

pub(crate) mod call;
pub(crate) mod crash;
pub(crate) mod lines;
pub(crate) mod memory;
pub(crate) mod oom;
pub(crate) mod pagefault;
pub(crate) mod signal;
pub(crate) mod summary;

use std::borrow::Cow;
use std::fmt;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::terminal::Style;
use crate::time::Timestamp;
use lines::InFile;

/// The version of the records' shapes, in every record. Fields are added under the same number.
pub(crate) const SCHEMA: u32 = 1;

/// A record that can be written either way.
pub(crate) trait Record: Serialize {
    /// Writes the text of the record, with a newline at its end. A record whose text has one look only is always written so.
    ///
    /// # Errors
    /// The errors of `to`: a `String` has none.
    fn write_text(&self, to: &mut String, style: Style) -> fmt::Result;

    /// The text of the record.
    fn text(&self) -> String {
        self.text_as(Style::default())
    }

    /// The same in another look.
    fn text_as(&self, style: Style) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write_text(&mut text, style);
        text
    }

    /// The JSON of the record: a line, or several. `known` says what the file has already. That asks the system for the file's length, which
    /// costs more than most records: only those that refer to the file call it.
    ///
    /// # Errors
    /// If it can't be encoded.
    fn json<'a>(&self, _known: impl FnOnce() -> &'a mut InFile) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).context("failed to encode a record")?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Declares an enum whose values each have one word, which JSON and text show.
macro_rules! words {
    ($(#[$about:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$about])*
        $vis enum $name {
            $($(#[$doc])* $value,)+
        }

        impl $name {
            /// As JSON has it.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}
use words;

/// The fields that every record begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The kind of the record: `crash`, `summary`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// See [`SCHEMA`].
    pub schema: u32,
    /// When it happened; of an interval, its end.
    pub timestamp: Timestamp,
    /// The machine's name.
    pub host: String,
}

impl Head {
    /// The head of a record of this kind.
    pub fn new(kind: &'static str, timestamp: Timestamp, host: &str) -> Self {
        Self { kind: kind.into(), schema: SCHEMA, timestamp, host: host.to_owned() }
    }

    /// The same, at a moment of CLOCK_BOOTTIME.
    pub fn at(kind: &'static str, boottime_ns: u64, host: &str) -> Result<Self> {
        Ok(Self::new(kind, Timestamp::from_boottime(boottime_ns)?, host))
    }
}

/// The fields of records that are written interval by interval, behind [`Head`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// When counting began. If it is later than before, faultline was restarted, and every `total` began at 0.
    pub since: Timestamp,
    /// The interval's length, time asleep included.
    pub interval_seconds: f64,
    /// The kernel's release.
    pub kernel: String,
    /// /proc/sys/kernel/random/boot_id; `None` means that the kernel doesn't report it.
    pub boot_id: Option<String>,
    /// The run is over: this record also has what was counted in earlier intervals only.
    #[serde(rename = "final")]
    pub last: bool,
}
