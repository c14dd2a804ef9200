//! Pointers that were cut to 32 bits on their way, as by a function without a prototype or a cast to int.

use super::instruction::{faulting_touch, in_brackets};
use super::words::{hex, verb};
use super::{Diagnosis, Kind, likely};
use crate::arch::{KERNEL_ADDRESS, LEAST_ADDRESS, Touch};
use crate::evidence::{Backing, Evidence};

const UPPER: u64 = 0xffff_ffff_0000_0000;

/// Is it a negative number of 32 bits, extended by its sign?
pub(super) fn is_extended(value: u64) -> bool {
    value & (UPPER | 1 << 31) == (UPPER | 1 << 31)
}

/// A pointer that is one.
pub(super) fn extended(facts: &Evidence, address: u64, pointer: u64, touch: &Touch) -> Option<Diagnosis> {
    let (verb, registers) = (verb(facts), in_brackets(touch));
    let of = whole(facts, pointer).map(|of| format!(", the lower half of {of}")).unwrap_or_default();
    let what = format!("a number of 32 bits that was extended by its sign{of}");
    likely(Kind::TruncatedPointer, format!("{verb} {}: the pointer is {what}{registers}", hex(address)))
}

/// An access to nothing, below 4 GiB.
pub(super) fn diagnose(facts: &Evidence, address: u64) -> Option<Diagnosis> {
    if !(LEAST_ADDRESS..!UPPER + 1).contains(&address) || !facts.memory.is_hole() {
        return None;
    }
    let touch = faulting_touch(facts).filter(|touch| touch.index.is_none() && !touch.is_on_stack)?;
    let pointer = touch.base.as_ref()?.value;
    let of = whole(facts, pointer).filter(|_| pointer & UPPER == 0)?;
    let what = format!("the pointer is the lower half of {of}, cut to 32 bits");
    likely(Kind::TruncatedPointer, format!("{} {}: {what}{}", verb(facts), hex(address), in_brackets(&touch)))
}

/// The address that has this lower half: in the heap, on the stack, or one that stands somewhere as a whole.
fn whole(facts: &Evidence, value: u64) -> Option<String> {
    let stack = facts.stack.at.as_ref().filter(|at| at.backing == Backing::MainStack).map(|at| at.start..at.end);
    let places =
        [(facts.heap.clone(), "an address in the heap"), (stack.unwrap_or_default(), "an address on the stack")];
    let placed = places.into_iter().find_map(|(range, what)| {
        // It is none of the lowest 4 GiB: there nothing was cut.
        let upper =
            [range.start & UPPER, range.end & UPPER].into_iter().filter(|&upper| upper != 0 && upper < KERNEL_ADDRESS);
        let address = upper.map(|upper| upper | value & !UPPER).find(|address| range.contains(address))?;
        Some(format!("{}, {what}", hex(address)))
    });
    let kept = || facts.wholes.iter().find(|&&address| is_lower_half(value, address));
    placed.or_else(|| Some(format!("{}, which a register or the stack still holds", hex(*kept()?))))
}

/// Is it the lower half of this address, of which the upper half has been lost?
pub(crate) fn is_lower_half(value: u64, address: u64) -> bool {
    let upper = address & UPPER;
    is_half(value) && value & !UPPER == address & !UPPER && upper != 0 && upper != UPPER
}

/// Is it a number of 32 bits, extended by its sign or not?
pub(crate) fn is_half(value: u64) -> bool {
    value & UPPER == 0 || is_extended(value)
}

#[cfg(test)]
mod tests {
    use super::super::Confidence;
    use super::super::cases::{Case, confidence, far, fault, kind, region, text};
    use super::*;

    /// `mov eax, [rdi]` in a process with a heap.
    fn read(address: u64) -> Case {
        let heap = region(0x5555_9abc_0000, 0x5555_9abe_0000, "rw-");
        let heap = crate::evidence::Region { backing: Backing::Heap, ..heap };
        let mut case = Case { code: vec![0x8b, 0x07], ..fault(1, address, 4) }.mapped(&[heap, far()]);
        case.registers.rdi = address;
        case
    }

    #[test]
    fn a_pointer_that_was_an_int() {
        let case = read(0xffff_ffff_9abc_12a0);
        assert_eq!(
            text(&case),
            "reads 0xffffffff9abc12a0: the pointer is a number of 32 bits that was extended by its sign, the lower half of 0x55559abc12a0, an address in the heap (rdi is 0xffffffff9abc12a0)"
        );
        assert_eq!((kind(&case), confidence(&case)), (Some(Kind::TruncatedPointer), Some(Confidence::Likely)));
        assert!(text(&read(0xffff_ffff_8123_4560)).ends_with("by its sign (rdi is 0xffffffff81234560)"), "of no place");
        assert_eq!(kind(&read(0xffff_8123_8123_4560)), Some(Kind::KernelAddress));
        assert_eq!(kind(&read(u64::MAX - 4)), Some(Kind::KernelAddress), "-5");
    }

    #[test]
    fn a_pointer_that_was_an_unsigned_int() {
        let case = read(0x9abc_12a0);
        assert_eq!(
            text(&case),
            "reads 0x9abc12a0: the pointer is the lower half of 0x55559abc12a0, an address in the heap, cut to 32 bits (rdi is 0x9abc12a0)"
        );
        assert_eq!(kind(&read(0x1abc_12a0)), None, "the lower half of nothing");
        let kept = |address, whole| Case { wholes: vec![whole], ..read(address) };
        assert_eq!(
            text(&kept(0x1abc_12a0, 0x7f12_1abc_12a0)),
            "reads 0x1abc12a0: the pointer is the lower half of 0x7f121abc12a0, which a register or the stack still holds, cut to 32 bits (rdi is 0x1abc12a0)"
        );
        assert_eq!(kind(&kept(0x1abc_12a0, 0x7f12_1abc_12a8)), None, "the lower half of another address");
        assert!(
            text(&kept(0xffff_ffff_8123_4560, 0x7f12_8123_4560))
                .contains("by its sign, the lower half of 0x7f1281234560")
        );
        let mut case = read(0x9abc_12a0);
        case.code.clear();
        assert_eq!(kind(&case), None, "no register holds it");
    }
}
