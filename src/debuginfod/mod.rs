//! A client of debuginfod servers: debug files and executables by their build id, in the cache that elfutils' and gdb's client uses, too.
//!
//! What a server sends is received by a process of its own, without privileges, which writes to one file and reads no other of anybody's
//! (`child`). It is bounded in time and size, and is kept only if it is an ELF file with the build id that was asked for. A server that
//! doesn't answer is left alone for a while, so that a dead one costs one wait.

mod cache;
mod child;
mod clean;
mod fetch;
mod settings;

pub(crate) use child::{FETCHER, serve};
pub(crate) use fetch::{Client, Outcome};
pub(crate) use settings::Settings;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The file with the debug information.
    Debuginfo,
    /// The file that ran, which says where in it the code is.
    Executable,
}

impl Kind {
    /// Its name in a URL and in the cache.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Debuginfo => "debuginfo",
            Self::Executable => "executable",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Debuginfo, Self::Executable].into_iter().find(|kind| kind.word() == word)
    }
}
