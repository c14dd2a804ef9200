//! What the keeper says to the process that counts.

use serde::{Deserialize, Serialize};

use super::super::opener::FileOwner;
use crate::evidence::FileId;

/// How many copies there are at most.
pub(in super::super) const COPIES_MAX: usize = 256;

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum Said {
    /// It lives.
    Lives,
    /// It looks at a file on this device.
    Looks(u64),
    /// It has made a copy, which comes with this.
    Copied(Copied),
    /// No process has run the file of this number any more since then, CLOCK_BOOTTIME: another file may have its inode.
    Ended { number: u64, at_ns: u64 },
    /// The copy of this number is not wanted any more.
    Forget(u64),
    /// There was no room for a file.
    Lost,
}

/// A copy, and which file it is of.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Copied {
    pub(in super::super) number: u64,
    /// The ids by which the kernel may mean it.
    pub(in super::super) ids: Vec<FileId>,
    /// Since when these ids surely mean this file, CLOCK_BOOTTIME.
    pub(in super::super) since_ns: u64,
    /// When its content was changed last, nanoseconds since 1970.
    pub(in super::super) changed_ns: i128,
    /// Only its build id distinguishes it from others.
    pub(in super::super) needs_build_id: bool,
    /// Who owned it.
    pub(in super::super) owner: FileOwner,
}
