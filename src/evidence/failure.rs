//! Why a file that ran has no names.

use serde::{Deserialize, Serialize};

/// Why names are missing, where the reason is ours and not the file's.
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
}
