//! The call that stands before a return address, and the instructions that lead to an address: Arm Architecture Reference Manual, C6.2.

use std::ops::Range;

use crate::arch::Call;

/// A call through a slot that the linker has made: `adrp`, `ldr` and `blr`, of 4 bytes each.
pub(crate) const CALL_BYTES_MAX: u64 = 12;

/// The call at the end of `code`, behind which is the address `end`. `is_code`: is there code at this address of the file? `slots`: those
/// that the linker has made. `None` means that it is no call.
pub(crate) fn call_before(
    code: &[u8],
    end: u64,
    is_code: impl Fn(u64) -> bool,
    slots: Option<&Range<u64>>,
) -> Option<Call> {
    let last = word_before(code, 0)?;
    if let Some(target) = target_of_bl(last, end.wrapping_sub(4)) {
        return is_code(target).then_some(Call::ByName);
    }
    let register = register_of_blr(last)?;
    let slot = || {
        let (page, load) = (word_before(code, 2)?, word_before(code, 1)?);
        slot_of_pair(page, load, end.wrapping_sub(12), register)
    };
    let is_slot = slot().is_some_and(|slot| slots.is_some_and(|slots| slots.contains(&slot)));
    Some(if is_slot { Call::ByName } else { Call::ByPointer })
}

/// The instruction that so many others follow before the end of `code`.
fn word_before(code: &[u8], others: usize) -> Option<u32> {
    let end = code.len().checked_sub(others * 4)?;
    Some(u32::from_le_bytes(code.get(end.checked_sub(4)?..end)?.try_into().ok()?))
}

/// BL at this address: where it leads.
pub(super) fn target_of_bl(word: u32, at: u64) -> Option<u64> {
    let distance = i64::from((word << 6).cast_signed() >> 6) * 4;
    (word & 0xfc00_0000 == 0x9400_0000).then(|| at.wrapping_add_signed(distance))
}

/// BLR, or one of its kind that checks a signature first: the number of its register.
pub(super) fn register_of_blr(word: u32) -> Option<u32> {
    let is_plain = word & 0xffff_fc1f == 0xd63f_0000;
    // BLRAAZ and BLRABZ; BLRAA and BLRAB, whose modifier is the last register.
    let is_signed = word & 0xffff_f81f == 0xd63f_081f || word & 0xffff_f800 == 0xd73f_0800;
    (is_plain || is_signed).then_some(word >> 5 & 31)
}

/// BLR: its address is in the register as it is.
pub(super) fn is_blr(word: u32) -> bool {
    word & 0xffff_fc1f == 0xd63f_0000
}

/// ADRP at this address, and LDR of 8 bytes from the page into `register`: what it reads.
pub(super) fn slot_of_pair(page: u32, load: u32, at: u64, register: u32) -> Option<u64> {
    if page & 0x9f00_0000 != 0x9000_0000 || load & 0xffc0_0000 != 0xf940_0000 {
        return None;
    }
    let (base, through) = (page & 31, load >> 5 & 31);
    let pages = (page >> 5 & 0x7_ffff) << 2 | (page >> 29 & 3);
    let distance = i64::from((pages << 11).cast_signed() >> 11) << 12;
    let offset = u64::from(load >> 10 & 0xfff) * 8;
    let page = (at & !0xfff).wrapping_add_signed(distance);
    (base == through && load & 31 == register).then(|| page.wrapping_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[u32]) -> Option<Call> {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        call_before(&code, 0x2000, |address| (0x1000..0x3000).contains(&address), Some(&(0x1_1000..0x1_2000)))
    }

    #[test]
    fn calls_by_name() {
        assert_eq!(call(&[0x9400_0011]), Some(Call::ByName), "bl 0x2040");
        assert_eq!(call(&[0x97ff_fff1]), Some(Call::ByName), "bl 0x1fc0");
        // adrp x0, 0x11000; ldr x0, [x0, #0xfe0]; blr x0
        assert_eq!(call(&[0x9000_0080, 0xf947_f000, 0xd63f_0000]), Some(Call::ByName), "a slot of the linker's");
    }

    #[test]
    fn calls_by_pointer() {
        for words in [
            &[0xd63f_0060][..],                       // blr x3
            &[0xd63f_081f],                           // blraaz x0
            &[0xd73f_0841],                           // blraa x2, x1
            &[0x9000_00a0, 0xf947_f000, 0xd63f_0000], // another page
            &[0x9000_0080, 0xf947_f000, 0xd63f_0020], // another register
        ] {
            assert_eq!(call(words), Some(Call::ByPointer), "{words:x?}");
        }
    }

    #[test]
    fn what_is_no_call_is_none() {
        assert_eq!(call(&[]), None);
        assert_eq!(call(&[0xd65f_03c0]), None, "ret");
        assert_eq!(call(&[0xd61f_0060]), None, "br x3");
        assert_eq!(call(&[0x9500_0000]), None, "it leads out of the file");
    }
}
