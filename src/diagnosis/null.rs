//! Accesses near address 0.

use super::instruction::{decoded, faulting_touch, in_brackets, short};
use super::words::{hex, verb};
use super::{Diagnosis, Kind, certain, likely};
use crate::arch::{LEAST_ADDRESS as NEAR, Operand, Touch};
use crate::evidence::Evidence;
use crate::{errno, page, runtime};

/// What two registers that don't say which is the pointer may be.
const BEHIND_NULL: &str = "near NULL, as a field or an element at that offset of a NULL pointer is";
/// Programs that can't be moved have their tables from here on.
const LEAST_LINKED: u64 = 0x40_0000;
/// A call's error as a pointer begins here.
const LEAST_ERROR: u64 = errno::MAX.cast_unsigned().wrapping_neg();

pub(super) fn diagnose(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    if facts.memory.at.is_some() {
        return None;
    }
    let touch = faulting_touch(facts);
    if touch.as_ref().is_some_and(|touch| touch.is_on_stack) {
        // A broken stack pointer: stack.rs.
        return None;
    }
    if is_far(address) {
        return far_behind(facts, address, touch.as_ref()?);
    }
    let verb = verb(facts);
    if let Some((pointer, touch)) = touch.as_ref().and_then(|touch| Some((null_register(touch)?, touch))) {
        let offset = match touch.index {
            None if address == 0 => format!("{verb} through a NULL pointer"),
            None if address < NEAR => format!("{verb} the field at offset {} of a NULL pointer", hex(address)),
            Some(_) if address < NEAR => format!("{verb} at offset {} of a NULL pointer", hex(address)),
            _ => format!("{verb} {} before a NULL pointer", hex(address.wrapping_neg())),
        };
        return certain(Kind::NullDereference, format!("{offset} ({pointer} is 0)"));
    }
    if address >= NEAR {
        // A kernel address, unless the pointer is a small number, of which something was subtracted.
        let is_small = |touch: &&Touch| {
            touch.index.is_none() && touch.base.as_ref().is_some_and(|base| base.value <= page::size())
        };
        return computed_before(facts, address, touch.as_ref().filter(is_small)?);
    }
    match touch {
        Some(touch) if touch.base.is_none() && touch.index.is_none() => {
            let place = match address {
                0 => format!("{verb} address 0: a NULL pointer"),
                _ => format!(
                    "{verb} address {}: near NULL, as a field at that offset of a NULL pointer is",
                    hex(address)
                ),
            };
            certain(Kind::NullDereference, format!("{place} (the instruction holds the address itself)"))
        }
        Some(touch) => computed_before(facts, address, &touch),
        None if decoded(facts).is_some_and(|instruction| instruction.is_by_thread()) => {
            let why = "the data of its own that a thread has is not set up (fs or gs leads to NULL)";
            likely(Kind::NullDereference, format!("{verb} address {}: {why}", hex(address)))
        }
        None => match decoded(facts).and_then(|instruction| instruction.base_of_vector()) {
            Some(base) if is_far(base.value) => None,
            Some(Operand { name, value }) => likely(
                Kind::NullDereference,
                format!("{verb} address {}: {BEHIND_NULL} ({name} is {})", hex(address), short(value)),
            ),
            None => by_number(verb, address),
        },
    }
}

/// Neither near 0 nor right before it.
fn is_far(value: u64) -> bool {
    (NEAR..NEAR.wrapping_neg()).contains(&value)
}

/// A field or an element far behind a NULL pointer, by its register. Where programs lie that can't be moved, the code itself may hold the address of
/// a table, and the register is the index.
fn far_behind(facts: &Evidence, address: u64, touch: &Touch) -> Option<Diagnosis> {
    let base = touch.base.as_ref().filter(|base| base.value == 0 && address < LEAST_LINKED)?;
    let is_pointer = touch.index.as_ref().is_none_or(|(index, scale)| {
        *scale > 1 && !is_far(address.wrapping_sub(index.value.wrapping_mul((*scale).into())))
    });
    let why = format!("far behind a NULL pointer ({} is 0): a field or an element there", base.name);
    is_pointer.then(|| likely(Kind::NullDereference, format!("{} {}, {why}", verb(facts), hex(address))))?
}

/// The same where only the address is known, as of a fault whose handler has changed the registers.
pub(super) fn by_address(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    let is_fetch = facts.frames.first().is_none_or(|frame| frame.address == address);
    if facts.memory.at.is_some() || address >= NEAR || is_fetch {
        return None;
    }
    by_number("accesses", address)
}

/// Nothing but the address says what the pointer was. Few objects have fields behind their first page.
fn by_number(verb: &str, address: u64) -> Option<Diagnosis> {
    let or =
        if address > page::size() { format!(", or an integer ({address}) used as a pointer") } else { String::new() };
    let what = match address {
        0 => format!("{verb} address 0: a NULL pointer"),
        _ => format!("{verb} address {}: near NULL, as a field at that offset of a NULL pointer is{or}", hex(address)),
    };
    likely(Kind::NullDereference, what)
}

/// The register that is the pointer is not 0: the offset of a field was added before, or it is no pointer at all.
fn computed_before(facts: &Evidence, address: u64, touch: &Touch) -> Option<Diagnosis> {
    let (verb, registers) = (verb(facts), in_brackets(touch));
    if !are_near(touch) {
        return None;
    }
    let is_alone = touch.index.as_ref().is_none_or(|(index, _)| index.value == 0);
    // A function of libc that takes memory adds its length to the pointer.
    let is_pointer = |base: u64| is_alone || (base > page::size() && is_in_string_function(facts));
    let pointer = touch.base.as_ref().map(|base| base.value).filter(|&base| is_pointer(base));
    let place = format!("{verb} address {}", hex(address));
    let (kind, what) = match pointer {
        Some(0) | None => (Kind::NullDereference, BEHIND_NULL.to_owned()),
        Some(value) if is_error(value) => return no_address(facts, address, value, touch),
        Some(NEAR..) => (Kind::NullDereference, BEHIND_NULL.to_owned()),
        Some(value) if value > page::size() && may_be_rounded(facts, value) => {
            let what = format!("an integer ({value}, or somewhat more) used as a pointer to a string or memory");
            (Kind::IntegerAsPointer, what)
        }
        // A string lies in a field at such an offset only of a large object.
        Some(value) if value > page::size() && is_in_string_function(facts) => {
            (Kind::IntegerAsPointer, format!("an integer ({value}) used as a pointer to a string or memory"))
        }
        // mmap() fails with -1, and to that whole pages were added.
        Some(value) if value > page::size() && page::offset(value) == page::size() - 1 => (
            Kind::IntegerAsPointer,
            format!(
                "an integer ({value}) used as a pointer, or a place whole pages behind -1, as a failed call returns it"
            ),
        ),
        Some(value) if value > page::size() => (
            Kind::IntegerAsPointer,
            format!("an integer ({value}) used as a pointer, or a field far behind a NULL pointer"),
        ),
        Some(value) => {
            // Fields begin at multiples of 4, unless they are smaller.
            let or = if value % 4 == 3 { ", or a place behind -1, as a failed call returns it" } else { "" };
            let what = "near NULL, as the address of a field of a NULL pointer is";
            (Kind::NullDereference, format!("{what}, or an integer ({value}) used as a pointer{or}"))
        }
    };
    likely(kind, format!("{place}: {what}{registers}"))
}

/// A valid pointer, or the place of a table, and an index that leads from there to near 0 are no NULL pointer.
fn are_near(touch: &Touch) -> bool {
    let mut registers = touch.base.iter().chain(touch.index.iter().map(|(index, _)| index));
    registers.all(|register| !is_far(register.value))
}

/// Is it a value that a failed call returns?
pub(super) fn is_error(pointer: u64) -> bool {
    pointer >= LEAST_ERROR
}

/// The base register is such a number.
pub(super) fn no_address(facts: &Evidence, address: u64, base: u64, touch: &Touch) -> Option<Diagnosis> {
    // mmap() fails with -1, MAP_FAILED.
    let like = if base == u64::MAX {
        ", as a failed call returns it"
    } else {
        ", a negative number, or what lies before a NULL pointer"
    };
    let what = format!("the pointer is {}{like}{}", base.cast_signed(), in_brackets(touch));
    certain(Kind::KernelAddress, format!("{} {}: {what}", verb(facts), hex(address)))
}

/// Has libc's own function rounded the pointer down? Where the first bytes of a string would reach the next page, it reads aligned ones.
pub(super) fn may_be_rounded(facts: &Evidence, pointer: u64) -> bool {
    const WIDEST: u64 = 64;
    pointer.is_multiple_of(16) && pointer % page::size() >= page::size() - WIDEST && is_in_string_function(facts)
}

/// Libc's own functions for strings and memory take the pointer as it is given: they know no fields.
fn is_in_string_function(facts: &Evidence) -> bool {
    let is_libcs = facts.frames.first().and_then(|frame| frame.region.as_ref()?.file()).is_some_and(runtime::is_libc);
    is_libcs && facts.function(0).is_some_and(runtime::is_string_function)
}

/// The register that is the pointer, if it is 0 and no other one could be the pointer.
fn null_register(touch: &Touch) -> Option<String> {
    let base = touch.base.as_ref()?;
    let is_pointer = match &touch.index {
        None => true,
        // The sum of two registers doesn't say which is the pointer.
        Some((index, scale)) => *scale > 1 && !is_far(index.value),
    };
    (base.value == 0 && is_pointer).then(|| base.name.clone())
}

#[cfg(test)]
mod tests;
