//! What a function does with an exception that a call of it throws, by the table of its language (LSDA) in `.gcc_except_table`, as
//! `__gxx_personality_v0` reads it: the Itanium C++ ABI, Exception Handling, and libsupc++'s eh_personality.cc.

use gimli::{EndianSlice, LittleEndian, Pointer, Reader};

use super::section::Section;
use crate::evidence::Handling;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// DW_EH_PE_*: there is nothing, the sizes of values, and a pointer of the machine.
const OMIT: u8 = 0xff;
const SIZE: u8 = 0x0f;
const ULEB128: u8 = 0x01;
const DATA4: [u8; 2] = [0x03, 0x0b];

/// No chain of actions is longer, unless somebody made it so.
const ACTIONS_MAX: usize = 256;

/// What the function that begins at `begin` does with an exception from its instruction at `address`, both by the file's own addresses.
/// `table` is the pointer to its LSDA. `None` means that it can't be read.
pub(super) fn handling(section: &Section, table: Pointer, begin: u64, address: u64) -> Option<Handling> {
    let Pointer::Direct(at) = table else { return None };
    let start = usize::try_from(at.checked_sub(section.address.start)?).ok()?;
    let whole = EndianSlice::new(section.bytes.get(start..)?, LittleEndian);
    let mut rest = whole;
    let landing_pads = rest.read_u8().ok()?;
    if landing_pads != OMIT {
        value(&mut rest, landing_pads)?;
    }
    let types = rest.read_u8().ok()?;
    let types = if types == OMIT {
        None
    } else {
        let distance = usize::try_from(rest.read_uleb128().ok()?).ok()?;
        Some((types, position(&whole, &rest).checked_add(distance)?))
    };
    let sites = rest.read_u8().ok()?;
    let bytes = usize::try_from(rest.read_uleb128().ok()?).ok()?;
    let actions = position(&whole, &rest).checked_add(bytes)?;
    let inside = address.checked_sub(begin)?;
    while position(&whole, &rest) < actions {
        let (start, length) = (value(&mut rest, sites)?, value(&mut rest, sites)?);
        let (landing_pad, action) = (value(&mut rest, sites)?, rest.read_uleb128().ok()?);
        if inside < start {
            break;
        }
        if inside - start < length {
            if landing_pad == 0 || action == 0 {
                return Some(Handling::Passes);
            }
            let first = actions.checked_add(usize::try_from(action - 1).ok()?)?;
            return chain(&whole, first, types);
        }
    }
    // What has no site may not throw.
    Some(Handling::Ends)
}

/// What a chain of actions catches.
fn chain(whole: &Slice<'_>, mut at: usize, types: Option<(u8, usize)>) -> Option<Handling> {
    let mut found = Handling::Passes;
    for _ in 0..ACTIONS_MAX {
        let mut rest = from(whole, at)?;
        let filter = rest.read_sleb128().ok()?;
        let before = position(whole, &rest);
        let next = rest.read_sleb128().ok()?;
        if filter > 0 {
            if is_any(whole, types?, usize::try_from(filter).ok()?)? {
                return Some(Handling::CatchesAll);
            }
            found = Handling::Catches;
        } else if filter < 0 {
            found = Handling::Catches;
        }
        if next == 0 {
            return Some(found);
        }
        at = usize::try_from(i64::try_from(before).ok()?.checked_add(next)?).ok()?;
    }
    None
}

/// Is it `catch (...)`? Its type is a null pointer.
fn is_any(whole: &Slice<'_>, (encoding, base): (u8, usize), number: usize) -> Option<bool> {
    let size = if DATA4.contains(&(encoding & SIZE)) { 4 } else { 8 };
    let mut rest = from(whole, base.checked_sub(number.checked_mul(size)?)?)?;
    Some(if size == 4 { rest.read_u32().ok()? == 0 } else { rest.read_u64().ok()? == 0 })
}

/// A value of this encoding; only its size matters here.
fn value(rest: &mut Slice<'_>, encoding: u8) -> Option<u64> {
    match encoding & SIZE {
        ULEB128 => rest.read_uleb128().ok(),
        size if DATA4.contains(&size) => rest.read_u32().ok().map(u64::from),
        0 => rest.read_u64().ok(),
        _ => None,
    }
}

fn position(whole: &Slice<'_>, rest: &Slice<'_>) -> usize {
    whole.len() - rest.len()
}

fn from<'a>(whole: &Slice<'a>, at: usize) -> Option<Slice<'a>> {
    Some(EndianSlice::new(whole.slice().get(at..)?, LittleEndian))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with three sites: 0x10 to 0x18 passes on, 0x20 to 0x28 catches by `actions`; from 0x30 on there is none.
    fn of(actions: &[u8], address: u64) -> Option<Handling> {
        let sites = [0x10, 8, 0, 0, 0x20, 8, 0x40, 1];
        let types = [0u32, 0x1234].map(u32::to_le_bytes).concat();
        let mut bytes = vec![OMIT, 0x9b, (2 + sites.len() + actions.len() + types.len()) as u8, 1, sites.len() as u8];
        bytes.extend([&sites[..], actions, &types].concat());
        let section = Section { address: 0x8000..0x8000 + bytes.len() as u64, bytes };
        handling(&section, Pointer::Direct(0x8000), 0x1000, 0x1000 + address)
    }

    #[test]
    fn what_is_done_with_an_exception_depends_on_the_call() {
        // The type before the end of the table is number 1.
        assert_eq!(of(&[1, 0], 0x12), Some(Handling::Passes));
        assert_eq!(of(&[1, 0], 0x24), Some(Handling::Catches));
        assert_eq!(of(&[2, 0], 0x24), Some(Handling::CatchesAll));
        assert_eq!(of(&[0, 0], 0x24), Some(Handling::Passes), "a destructor");
        assert_eq!(of(&[1, 1, 2, 0], 0x24), Some(Handling::CatchesAll), "one after the other");
        for gap in [0x8, 0x1a, 0x30] {
            assert_eq!(of(&[1, 0], gap), Some(Handling::Ends), "{gap:#x}");
        }
    }

    #[test]
    fn a_crafted_table_does_no_harm() {
        assert_eq!(of(&[1, 0x7f], 0x24), None, "a chain that is its own next");
        for actions in [&[9, 0][..], &[], &[0x7f, 1], &[0x80, 0x80, 0x80], &[1, 0x40]] {
            of(actions, 0x24);
        }
        let section = Section { address: 0x8000..0x8001, bytes: vec![OMIT] };
        for table in [0x7fff, 0x8000, 0x8001, 0x9000, u64::MAX] {
            assert_eq!(handling(&section, Pointer::Direct(table), 0, 0), None);
        }
        assert_eq!(handling(&section, Pointer::Indirect(0x8000), 0, 0), None);
    }
}
