//! How a thread came to an address where there is no code: by which call, or by a return.

use super::Registers;
use super::call::{is_blr, register_of_blr, target_of_bl};
use super::unwind::{self, return_address};
use crate::arch::{Arrival, CalledPointer, StackTop};
use crate::hex::Hex;

/// The registers that a function keeps for its caller (AAPCS64 6.1.1).
const KEPT: std::ops::RangeInclusive<u32> = 19..=29;

/// How the thread came to `address`. The registers that a callee keeps are those of the call; that of the return
/// address, which a call has set. A return leaves there what it jumps to. `top` has it, with the code before it.
/// `is_code`: is there code at this address? `None` means that nothing proves it.
pub(crate) fn arrival(
    registers: &Registers,
    address: u64,
    top: &StackTop,
    is_code: impl Fn(u64) -> bool,
) -> Option<Arrival> {
    let end = return_address(top.caller);
    if end == address {
        return Some(Arrival::Returned);
    }
    let code: [u8; 4] = *top.code.as_ref()?.last_chunk()?;
    let word = u32::from_le_bytes(code);
    if let Some(target) = target_of_bl(word, end.wrapping_sub(4)) {
        let arrival = || if target == address { Arrival::CalledByName } else { Arrival::Behind(Some(target)) };
        return (target == address || is_code(target)).then(arrival);
    }
    let number = register_of_blr(word)?;
    let value = unwind::registers(registers).get(number as usize).copied().filter(|_| number < 31);
    match value.filter(|_| is_blr(word)) {
        Some(value) if value == address => {
            let is = if value == 0 { "0".to_owned() } else { Hex(value).to_string() };
            let is_kept = KEPT.contains(&number);
            Some(Arrival::CalledThrough(CalledPointer { text: format!("x{number} is {is}"), is_kept }))
        }
        value => Some(Arrival::Behind(value.filter(|&value| is_code(value)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: u64 = 0xaaaa_aaaa_0100;

    /// The return address is CALLER, before which this instruction stands.
    fn arrived(x3: u64, address: u64, word: u32) -> Option<Arrival> {
        let mut code = [0; 8];
        code[4..].copy_from_slice(&word.to_le_bytes());
        let top = StackTop { popped: CALLER, caller: CALLER, code: Some(code), slot: None };
        let registers = Registers { x3, x30: CALLER, ..Registers::default() };
        arrival(&registers, address, &top, |at| (0xaaaa_aaaa_0000..0xaaaa_aaaa_1000).contains(&at))
    }

    #[test]
    fn a_call_through_a_register_that_holds_the_address_is_the_one() {
        const BLR_X3: u32 = 0xd63f_0060;
        const BLR_X19: u32 = 0xd63f_0260;
        let through =
            |text: &str, is_kept| Some(Arrival::CalledThrough(CalledPointer { text: text.to_owned(), is_kept }));
        assert_eq!(arrived(0, 0, BLR_X3), through("x3 is 0", false));
        assert_eq!(arrived(0x1234, 0x1234, BLR_X3), through("x3 is 0x1234", false));
        assert_eq!(arrived(0x1234, 0, BLR_X19), through("x19 is 0", true));
        assert_eq!(arrived(0xaaaa_aaaa_0040, 0, BLR_X3), Some(Arrival::Behind(Some(0xaaaa_aaaa_0040))));
        assert_eq!(arrived(0x7000, 0, BLR_X3), Some(Arrival::Behind(None)), "which the callee may have changed");
        assert_eq!(arrived(0, 0, 0xd63f_087f), Some(Arrival::Behind(None)), "blraaz x3: a signed pointer is another");
    }

    #[test]
    fn a_direct_call_leads_where_it_says() {
        let bl = |distance: i32| 0x9400_0000 | (distance / 4).cast_unsigned() & 0x03ff_ffff;
        assert_eq!(arrived(0, 0, bl(0x44)), Some(Arrival::Behind(Some(CALLER + 0x40))));
        assert_eq!(arrived(0, CALLER + 0x4000, bl(0x4004)), Some(Arrival::CalledByName));
        assert_eq!(arrived(0, 0, bl(0x4004)), None, "there is no code");
    }

    #[test]
    fn a_return_leaves_the_address_in_its_register() {
        let top = StackTop { popped: 0x4141, caller: 0x4141, ..StackTop::default() };
        assert_eq!(arrival(&Registers::default(), 0x4141, &top, |_| true), Some(Arrival::Returned));
        assert_eq!(arrival(&Registers::default(), 0x4242, &top, |_| true), None);
        assert_eq!(arrived(0, 0, 0xd65f_03c0), None, "before the return address stands no call");
    }
}
