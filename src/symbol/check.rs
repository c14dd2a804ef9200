//! Refuses debug information that the symbolizer would not survive, because it follows inlined functions by recursion. No compiler
//! comes near the bounds here; a file that exceeds them was made to harm us.

use std::time::{Duration, Instant};

use gimli::{DebugAbbrev, DebugInfo, LittleEndian};

/// How deep entries may be nested. Real files have some tens of levels.
const DEPTH_MAX: isize = 256;

/// How long the check of a file may take.
const TIME_MAX: Duration = Duration::from_secs(2);

/// How many entries are checked before the clock is read again.
const PAUSE: u32 = 4096;

/// Is this debug information within the bounds?
pub(super) fn is_harmless(info: &[u8], abbreviations: &[u8]) -> bool {
    look_through(info, abbreviations, Instant::now() + TIME_MAX).unwrap_or(false)
}

/// `None` means that it can't be parsed, so that it isn't known what the symbolizer would make of it.
fn look_through(info: &[u8], abbreviations: &[u8], deadline: Instant) -> Option<bool> {
    let abbreviations = DebugAbbrev::new(abbreviations, LittleEndian);
    let mut units = DebugInfo::new(info, LittleEndian).units();
    let mut last = None;
    let mut seen = 0_u32;
    while let Some(unit) = units.next().ok()? {
        // Most units have a table of their own, unless a linker has merged the tables.
        let offset = unit.debug_abbrev_offset();
        if last.as_ref().is_none_or(|(known, _)| *known != offset) {
            last = Some((offset, unit.abbreviations(&abbreviations).ok()?));
        }
        let (_, table) = last.as_ref()?;
        let mut entries = unit.entries_raw(table, None).ok()?;
        while !entries.is_empty() {
            if entries.next_depth() > DEPTH_MAX {
                return Some(false);
            }
            if let Some(entry) = entries.read_abbreviation().ok()? {
                entries.skip_attributes(entry.attributes()).ok()?;
            }
            seen = seen.wrapping_add(1);
            if seen.is_multiple_of(PAUSE) && Instant::now() > deadline {
                return Some(false);
            }
        }
        if Instant::now() > deadline {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit of `depth` inlined functions, each in the one before it.
    fn nested(depth: usize) -> (Vec<u8>, Vec<u8>) {
        // Code 1: DW_TAG_compile_unit, code 2: DW_TAG_inlined_subroutine, both with children and without attributes.
        let abbreviations = vec![1, 0x11, 1, 0, 0, 2, 0x1d, 1, 0, 0, 0];
        let mut entries = vec![1];
        entries.extend(vec![2; depth]);
        entries.extend(vec![0; depth + 1]);
        // DWARF 4: length, version, offset of the abbreviations, address size.
        let mut info = (entries.len() as u32 + 7).to_le_bytes().to_vec();
        info.extend_from_slice(&[4, 0, 0, 0, 0, 0, 8]);
        info.extend_from_slice(&entries);
        (info, abbreviations)
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        for (depth, wanted) in [(10, true), (200, true), (300, false), (1 << 20, false)] {
            let (info, abbreviations) = nested(depth);
            assert_eq!(is_harmless(&info, &abbreviations), wanted, "{depth}");
        }
    }

    #[test]
    fn what_cant_be_read_is_refused() {
        let (info, abbreviations) = nested(5);
        assert!(!is_harmless(&info[..info.len() - 4], &abbreviations));
        assert!(!is_harmless(&info, &[]));
        assert!(is_harmless(&[], &[]));
    }
}
