//! Why the name of a function is missing.

use serde::{Deserialize, Serialize};

use super::Function;

/// The functions at a place in the code, innermost first: inlined ones, then the one that they are part of, never none. Or why no name is
/// certain.
pub(crate) type Functions = Result<Vec<Function>, Failure>;

/// Why names are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The namer was not done with the record when its time was up.
    TimedOut,
    /// The namer or the opener died of the record.
    Died,
    /// An earlier record failed in this file.
    FailedBefore,
    /// Too many records were waiting for their names.
    Busy,
    /// The run ended before the names came.
    Ended,
    /// The namer can't be started.
    Unavailable,
    /// What lies at the file's path is another file, or can't be proved to be the same.
    OtherFile,
    /// The names exceed what one record may have, or the file's symbols or debug information what is read of one file.
    TooLarge,
    /// Nothing leads to the file: it is deleted, or out of reach, or its path is not known.
    NotFound,
    /// What is in the file can't be understood.
    Unreadable,
    /// Neither the file nor its debug file has a symbol there.
    NoSymbol,
    /// The code is not that of a file: it was generated, or moved into memory of its own.
    NoFile,
    /// The address is in none of the executable mappings that are known.
    NoCode,
}

impl Failure {
    /// Is the reason ours, and not the file's or the process's? Then the same crash may have names another time.
    pub(crate) fn is_ours(self) -> bool {
        match self {
            Self::TimedOut
            | Self::Died
            | Self::FailedBefore
            | Self::Busy
            | Self::Ended
            | Self::Unavailable
            | Self::OtherFile
            | Self::TooLarge => true,
            Self::NotFound | Self::Unreadable | Self::NoSymbol | Self::NoFile | Self::NoCode => false,
        }
    }
}
