//! SIGFPE. FPE_INTDIV means a division by zero or a quotient that doesn't fit: the operands decide.

use super::instruction::decoded;
use super::words::hex;
use super::{Diagnosis, Kind, certain};
use crate::arch::Operand;
use crate::evidence::Evidence;

pub(super) fn diagnose(facts: &Evidence, code: i32) -> Option<Diagnosis> {
    let unmasked = "in floating point, which the program has made a trap (feenableexcept)";
    match code {
        1 => division(facts),
        3 => certain(Kind::FloatingPointDivideByZero, format!("divides by zero {unmasked}")),
        4 => certain(Kind::FloatingPointOverflow, format!("overflows {unmasked}")),
        // The kernel has one code for both: fpu__exception_code(), arch/x86/kernel/fpu/core.c.
        5 => certain(
            Kind::FloatingPointUnderflow,
            "underflows in floating point, or computes with a number that is too small to be normal (denormal), which the program has made a trap (feenableexcept)",
        ),
        6 => certain(Kind::FloatingPointInexact, format!("gets an inexact result {unmasked}")),
        7 => certain(Kind::FloatingPointInvalid, format!("does an invalid operation {unmasked}")),
        _ => None,
    }
}

fn division(facts: &Evidence) -> Option<Diagnosis> {
    let division = decoded(facts)?.division()?;
    match &division.divisor {
        Some(Operand { name, value: 0 }) => certain(Kind::DivideByZero, format!("divides by zero ({name} is 0)")),
        Some(Operand { name, value }) if division.overflows => certain(
            Kind::DivideOverflow,
            format!("the quotient of a division does not fit into {} bits ({name} is {})", division.bits, hex(*value)),
        ),
        // The registers don't explain the fault.
        Some(_) => None,
        // Whatever the divisor is, only 0 fails.
        None if !division.overflows => certain(Kind::DivideByZero, "divides by zero (the divisor is in memory)"),
        None => None,
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
