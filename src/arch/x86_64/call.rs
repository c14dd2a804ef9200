//! The call that stands before a return address.

use std::ops::Range;

use iced_x86::{Code as Opcode, Decoder, DecoderOptions, Register};

use crate::arch::Call;

/// No call is longer: an opcode of one byte, ModRM, SIB, four bytes of displacement, and a prefix.
pub(crate) const CALL_BYTES_MAX: u64 = 8;

/// A call to an address in itself, which is the most frequent one.
const NEAR_BYTES: usize = 5;

/// The call at the end of `code`, behind which is the address `end`. Instructions can't be read backwards, so that several may fit: a call to
/// one of the file's own functions is the likeliest of them. `is_code`: is there code at this address of the file? `slots`: those that the linker
/// has made. `None` means that it is no call.
pub(crate) fn call_before(
    code: &[u8],
    end: u64,
    is_code: impl Fn(u64) -> bool,
    slots: Option<&Range<u64>>,
) -> Option<Call> {
    let decode = |length: usize| {
        let bytes = code.get(code.len().checked_sub(length)?..)?;
        let ip = end.wrapping_sub(length as u64);
        let decoded = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode();
        (decoded.len() == length).then_some(decoded)
    };
    let is_near = |call: &iced_x86::Instruction| call.code() == Opcode::Call_rel32_64 && is_code(call.near_branch64());
    if decode(NEAR_BYTES).is_some_and(|call| is_near(&call)) {
        return Some(Call::ByName);
    }
    let call = (2..=CALL_BYTES_MAX as usize).filter_map(decode).find(|call| call.code() == Opcode::Call_rm64)?;
    let is_relative = call.op0_register() == Register::None && call.is_ip_rel_memory_operand();
    let is_slot = is_relative && slots.is_some_and(|slots| slots.contains(&call.ip_rel_memory_address()));
    Some(if is_slot { Call::ByName } else { Call::ByPointer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(code: &[u8]) -> Option<Call> {
        call_before(code, 0x2000, |address| (0x1000..0x3000).contains(&address), Some(&(0x4000..0x5000)))
    }

    #[test]
    fn calls_by_name() {
        assert_eq!(call(&[0x90, 0xe8, 0, 1, 0, 0]), Some(Call::ByName));
        // call *0x2000(%rip): a slot of the linker's.
        assert_eq!(call(&[0xff, 0x15, 0, 0x20, 0, 0]), Some(Call::ByName));
        // The last three bytes would be call *(%rax).
        assert_eq!(call(&[0x90, 0xe8, 0x10, 0, 0, 0]), Some(Call::ByName));
    }

    #[test]
    fn calls_by_pointer() {
        for code in [
            &[0xff, 0xd0][..],                  // call *%rax
            &[0x41, 0xff, 0xd4],                // call *%r12
            &[0xff, 0x50, 0x10],                // call *0x10(%rax)
            &[0xff, 0x14, 0xc3],                // call *(%rbx,%rax,8)
            &[0x41, 0xff, 0x54, 0x24, 8],       // call *8(%r12)
            &[0xff, 0x90, 0, 1, 0, 0],          // call *0x100(%rax)
            &[0xff, 0x15, 0, 0x40, 0, 0],       // call *0x4000(%rip): a variable
            &[0xe8, 0, 0, 0, 0x41, 0xff, 0xd4], // what looks like a call leads nowhere
        ] {
            let padded = [&[0x90; 8], code].concat();
            assert_eq!(call(&padded), Some(Call::ByPointer), "{code:x?}");
        }
    }

    #[test]
    fn what_is_no_call_is_none() {
        assert_eq!(call(&[0x90; 8]), None);
        assert_eq!(call(&[]), None);
        assert_eq!(call(&[0xe8, 0, 0, 0, 0x7f]), None, "it leads out of the file");
    }
}
