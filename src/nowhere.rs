//! Standard streams that lead nowhere, for children. An empty root folder has no /dev/null: there a pipe serves whose other end is closed.

use std::io;
use std::path::Path;
use std::process::Stdio;

/// A reader is at its end at once.
pub(crate) fn input() -> io::Result<Stdio> {
    if has_null() { Ok(Stdio::null()) } else { io::pipe().map(|(reader, _)| Stdio::from(reader)) }
}

/// What is written to it is gone. Without /dev/null that is an error (EPIPE; our children ignore the signal), which they don't mind.
pub(crate) fn output() -> io::Result<Stdio> {
    if has_null() { Ok(Stdio::null()) } else { io::pipe().map(|(_, writer)| Stdio::from(writer)) }
}

fn has_null() -> bool {
    Path::new("/dev/null").exists()
}
