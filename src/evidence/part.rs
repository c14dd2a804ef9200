//! Which part of a program or library an address is in, as its file has it.

use serde::{Deserialize, Serialize};

/// No section has a longer name that means something.
const NAME_BYTES_MAX: usize = 64;

/// A place in an ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilePart {
    /// The section. `None` means that it is in none, or that the file has no table of them.
    pub section: Option<String>,
    /// It is written while the program starts, and closed then (PT_GNU_RELRO).
    pub is_relocated: bool,
}

impl FilePart {
    /// May it be one of ours? It comes from a process that parses what anybody may have made.
    pub(crate) fn fits(&self) -> bool {
        self.section.as_ref().is_none_or(|name| name.len() <= NAME_BYTES_MAX)
    }

    /// Constants and literals lie there: `.rodata`, `.rodata.str1.1`, `.lrodata`.
    pub(crate) fn has_constants(&self) -> bool {
        let name = self.section.as_deref().unwrap_or_default();
        [".rodata", ".lrodata"]
            .iter()
            .any(|one| name.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_in_rodata() {
        let of = |name: &str| FilePart { section: Some(name.to_owned()), ..FilePart::default() }.has_constants();
        assert!(of(".rodata") && of(".rodata.cst16") && of(".lrodata"));
        assert!(!of(".rodatas") && !of(".eh_frame") && !of(".data.rel.ro"));
        assert!(!FilePart::default().has_constants());
    }

    #[test]
    fn a_long_name_is_none_of_ours() {
        assert!(!FilePart { section: Some("x".repeat(65)), is_relocated: false }.fits());
        assert!(FilePart::default().fits());
    }
}
