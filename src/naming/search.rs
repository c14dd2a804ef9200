//! Where files of debug information are looked for.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folders, besides the system's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SearchPath {
    /// The folders of the command line, which come first.
    pub debug_dirs: Vec<PathBuf>,
    /// What debuginfod's client has fetched. `None` means that it isn't wanted.
    pub cache: Option<PathBuf>,
}

impl SearchPath {
    /// As arguments of a child: the cache, which may be empty, and the others.
    pub(super) fn arguments(&self) -> impl Iterator<Item = OsString> {
        let cache = self.cache.clone().unwrap_or_default();
        std::iter::once(cache).chain(self.debug_dirs.clone()).map(PathBuf::into_os_string)
    }

    pub(super) fn of(mut arguments: impl Iterator<Item = OsString>) -> Self {
        let cache = arguments.next().filter(|cache| !cache.is_empty()).map(PathBuf::from);
        Self { debug_dirs: arguments.map(PathBuf::from).collect(), cache }
    }
}

impl From<Vec<PathBuf>> for SearchPath {
    fn from(debug_dirs: Vec<PathBuf>) -> Self {
        Self { debug_dirs, cache: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_as_it_was_given() {
        for cache in [None, Some(PathBuf::from("/c"))] {
            for debug_dirs in [vec![], vec![PathBuf::from("/a"), PathBuf::from("/b")]] {
                let search = SearchPath { debug_dirs, cache: cache.clone() };
                assert_eq!(SearchPath::of(search.arguments()), search);
            }
        }
    }
}
