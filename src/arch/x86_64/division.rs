//! DIV and IDIV: the kernel says FPE_INTDIV of both a division by zero and a quotient that doesn't fit, so that only the operands show
//! which it was.

use iced_x86::{Mnemonic, OpKind};

use super::instruction::operand;
use super::{Instruction, Registers};
use crate::arch::Division;

/// What is divided, in bits of the divisor's size.
struct Dividend {
    is_signed: bool,
    bits: u32,
    high: u64,
    low: u64,
}

impl Instruction<'_> {
    /// The division that it is.
    pub(crate) fn division(&self) -> Option<Division> {
        let is_signed = match self.decoded.mnemonic() {
            Mnemonic::Div => false,
            Mnemonic::Idiv => true,
            _ => return None,
        };
        let is_register = self.decoded.op0_kind() == OpKind::Register;
        let bytes = match self.decoded.op0_kind() {
            OpKind::Register => self.decoded.op0_register().size(),
            OpKind::Memory => self.decoded.memory_size().size(),
            _ => return None,
        };
        let bits = bytes as u32 * 8;
        let dividend = Dividend::new(is_signed, bits, self.registers)?;
        let divisor = is_register.then(|| operand(self.registers, self.decoded.op0_register())).flatten();
        let fits = divisor.as_ref().map_or_else(|| dividend.always_fits(), |divisor| dividend.fits(divisor.value));
        Some(Division { bits, divisor, overflows: !fits })
    }
}

impl Dividend {
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

    /// Only the divisor 0 makes this dividend too large.
    fn always_fits(&self) -> bool {
        let most = (1i128 << (self.bits - 1)) - 1;
        if self.is_signed { (-most..=most).contains(&(self.dividend() as i128)) } else { self.high == 0 }
    }
}
