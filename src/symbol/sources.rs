//! Where the names of a file come from, for `doctor --symbols` and debuginfod, which look for better ones.

use serde::{Deserialize, Serialize};

use super::table::Table;
use super::{MappedFile, Namer};

/// What has been found for the names of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sources {
    /// The file says where in it the code is. If it doesn't, an offset in the file has no name.
    pub is_placed: bool,
    /// It has a table of symbols, or its debug file has.
    pub has_symbols: bool,
    /// The same with the functions that it doesn't export: most tools leave out these of a stripped file.
    pub has_all_symbols: bool,
    /// It has files and lines, or its debug file has.
    pub has_lines: bool,
    /// It has a debug file.
    pub has_debug_file: bool,
}

impl Namer {
    /// What there is for a file that names were asked of. `None` means that none were, or that the file can't be read.
    pub(crate) fn sources(&self, file: &MappedFile) -> Option<Sources> {
        let symbols = self.files.get(&file.version)?;
        let has = |what: fn(&Table) -> bool| symbols.tables.iter().any(what);
        Some(Sources {
            is_placed: symbols.code.iter().any(|code| !code.offset.is_empty()),
            has_symbols: has(Table::has_symbols),
            has_all_symbols: has(Table::has_all_symbols),
            has_lines: has(Table::has_lines),
            has_debug_file: has(|table| !table.is_own),
        })
    }

    /// Forgets what was read: better may be there now.
    pub(crate) fn forget(&mut self) {
        self.files.clear();
    }
}
