//! SIGFPE. The kernel says FPE_INTDIV of both a division by zero and a quotient that doesn't fit: the operands tell.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::instruction::{decoded, register_name, register_value};
use super::words::hex;
use super::{Diagnosis, Kind, certain};
use crate::arch::Registers;
use crate::evidence::Evidence;

pub(super) fn diagnose(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    let unmasked = "in floating point, which the program has made a trap (feenableexcept)";
    match code {
        1 => division(facts),
        3 => certain(Kind::FloatingPointDivideByZero, format!("divides by zero {unmasked}")),
        4 => certain(Kind::FloatingPointOverflow, format!("overflows {unmasked}")),
        5 => certain(Kind::FloatingPointUnderflow, format!("underflows {unmasked}")),
        6 => certain(Kind::FloatingPointInexact, format!("gets an inexact result {unmasked}")),
        7 => certain(Kind::FloatingPointInvalid, format!("does an invalid operation {unmasked}")),
        _ => None,
    }
}

/// A dividend and its divisor, in bits of the divisor's size.
struct Division {
    is_signed: bool,
    bits: u32,
    high: u64,
    low: u64,
}

fn division(facts: &Evidence) -> Option<Diagnosis> {
    let (instruction, registers) = decoded(facts)?;
    let is_signed = match instruction.mnemonic() {
        Mnemonic::Div => false,
        Mnemonic::Idiv => true,
        _ => return None,
    };
    let bits = match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size(),
        OpKind::Memory => instruction.memory_size().size(),
        _ => return None,
    } as u32
        * 8;
    let division = Division::new(is_signed, bits, registers)?;
    match divisor(&instruction, registers) {
        Some((register, 0)) => {
            certain(Kind::DivideByZero, format!("divides by zero ({} is 0)", register_name(register)))
        }
        Some((register, divisor)) if !division.fits(divisor) => certain(
            Kind::DivideOverflow,
            format!(
                "the quotient of a division does not fit into {bits} bits ({} is {})",
                register_name(register),
                hex(divisor)
            ),
        ),
        // The registers don't explain the fault.
        Some(_) => None,
        // Whatever the divisor is, only 0 fails.
        None if division.always_fits() => certain(Kind::DivideByZero, "divides by zero (the divisor is in memory)"),
        None => None,
    }
}

fn divisor(instruction: &Instruction, registers: &Registers) -> Option<(Register, u64)> {
    if instruction.op0_kind() != OpKind::Register {
        return None;
    }
    let register = instruction.op0_register();
    Some((register, register_value(registers, register)?))
}

impl Division {
    fn new(is_signed: bool, bits: u32, registers: &Registers) -> Option<Self> {
        let mask = u64::MAX.checked_shr(64u32.checked_sub(bits)?)?;
        let high = if bits == 8 { registers.rax >> 8 } else { registers.rdx };
        Some(Self { is_signed, bits, high: high & mask, low: registers.rax & mask })
    }

    /// The dividend, sign-extended where it is signed.
    fn dividend(&self) -> u128 {
        let value = u128::from(self.high) << self.bits | u128::from(self.low);
        let unused = 128 - 2 * self.bits;
        if self.is_signed { ((value << unused) as i128 >> unused) as u128 } else { value }
    }

    fn fits(&self, divisor: u64) -> bool {
        if !self.is_signed {
            return self.high < divisor;
        }
        let unused = 64 - self.bits;
        let divisor = i128::from((divisor << unused) as i64 >> unused);
        let least = -(1i128 << (self.bits - 1));
        (self.dividend() as i128).checked_div(divisor).is_some_and(|quotient| (least..-least).contains(&quotient))
    }

    /// The dividend is one that no divisor but 0 makes too large.
    fn always_fits(&self) -> bool {
        let most = (1i128 << (self.bits - 1)) - 1;
        if self.is_signed { (-most..=most).contains(&(self.dividend() as i128)) } else { self.high == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, kind, signal, text};
    use super::*;

    fn divide(code: &[u8], rdx: u64, rax: u64, rcx: u64) -> Case {
        let mut case = Case { code: code.to_vec(), ..signal(8, 1) };
        (case.registers.rdx, case.registers.rax, case.registers.rcx) = (rdx, rax, rcx);
        case
    }

    const IDIV_ECX: [u8; 2] = [0xf7, 0xf9];
    const DIV_RCX: [u8; 3] = [0x48, 0xf7, 0xf1];
    const IDIV_MEMORY: [u8; 2] = [0xf7, 0x39];
    const DIV_CL: [u8; 2] = [0xf6, 0xf1];

    #[test]
    fn zero_is_read_from_the_register_of_the_right_size() {
        assert_eq!(text(&divide(&IDIV_ECX, 0, 7, 0xffff_ffff_0000_0000)), "divides by zero (ecx is 0)");
        assert_eq!(kind(&divide(&DIV_CL, 0, 7, 0xff00)), Some(Kind::DivideByZero));
    }

    #[test]
    fn an_overflow_is_computed() {
        // INT_MIN / -1
        let minimum = divide(&IDIV_ECX, 0xffff_ffff, 0x8000_0000, 0xffff_ffff);
        assert_eq!(text(&minimum), "the quotient of a division does not fit into 32 bits (ecx is 0xffffffff)");
        assert_eq!(kind(&divide(&DIV_RCX, 5, 0, 5)), Some(Kind::DivideOverflow));
        assert_eq!(kind(&divide(&DIV_RCX, 4, u64::MAX, 5)), None, "it fits");
        assert_eq!(kind(&divide(&DIV_CL, 0, 0x500, 5)), Some(Kind::DivideOverflow));
        assert_eq!(kind(&divide(&DIV_CL, 0, 0x4ff, 5)), None, "it fits");
        assert_eq!(kind(&divide(&IDIV_ECX, 0xffff_ffff, 0x8000_0001, 0xffff_ffff)), None, "it fits");
        let minimum = divide(&[0x48, 0xf7, 0xf9], u64::MAX, 1 << 63, u64::MAX);
        assert_eq!(kind(&minimum), Some(Kind::DivideOverflow));
        assert_eq!(kind(&divide(&[0x48, 0xf7, 0xf9], 1 << 63, 0, u64::MAX)), Some(Kind::DivideOverflow));
    }

    #[test]
    fn a_divisor_in_memory_is_0_if_nothing_else_can_fail() {
        assert_eq!(kind(&divide(&IDIV_MEMORY, 0, 7, 0)), Some(Kind::DivideByZero));
        assert_eq!(kind(&divide(&IDIV_MEMORY, 0xffff_ffff, 0xffff_fff9, 0)), Some(Kind::DivideByZero));
        assert_eq!(kind(&divide(&IDIV_MEMORY, 0xffff_ffff, 0x8000_0000, 0)), None, "it may be -1");
        assert_eq!(kind(&divide(&IDIV_MEMORY, 1, 0, 0)), None);
    }

    #[test]
    fn only_a_division_divides() {
        assert_eq!(kind(&divide(&[0x90], 0, 0, 0)), None);
        assert_eq!(kind(&Case { code: Vec::new(), ..divide(&IDIV_ECX, 0, 0, 0) }), None);
    }

    #[test]
    fn floating_point_has_codes_of_its_own() {
        assert_eq!(kind(&signal(8, 3)), Some(Kind::FloatingPointDivideByZero));
        assert_eq!(kind(&signal(8, 7)), Some(Kind::FloatingPointInvalid));
        assert_eq!(kind(&signal(8, 14)), None);
    }
}
