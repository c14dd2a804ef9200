//! The stubs by which code calls functions of other files.

use iced_x86::{Code as Opcode, Decoder, DecoderOptions};
use object::elf::{R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT};

/// The relocations that give a slot the address of a function.
pub(crate) const LINKS: [u32; 2] = [R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT];

/// Before the jump of a stub stands at most one instruction (endbr64).
const INSTRUCTIONS_MAX: usize = 2;

/// The address of the slot through which the stub at `start` jumps. `None` means that this is no such stub.
pub(crate) fn slot_of(stub: &[u8], start: u64) -> Option<u64> {
    let decoder = Decoder::with_ip(64, stub, start, DecoderOptions::NONE);
    let jump = decoder.into_iter().take(INSTRUCTIONS_MAX).find(|decoded| decoded.code() == Opcode::Jmp_rm64)?;
    jump.is_ip_rel_memory_operand().then(|| jump.ip_rel_memory_address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_jumps_through_a_slot() {
        let jump = [0xff, 0x25, 0x10, 0, 0, 0];
        assert_eq!(slot_of(&jump, 0x1000), Some(0x1016));
        let branch = [&[0xf3, 0x0f, 0x1e, 0xfa, 0xf2][..], &jump].concat();
        assert_eq!(slot_of(&branch, 0x1000), Some(0x101b), "endbr64; bnd jmp");
        assert_eq!(slot_of(&[0x68, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0], 0x1000), None, "push; jmp");
        assert_eq!(slot_of(&[0xff, 0xe0], 0x1000), None, "jmp *%rax");
        assert_eq!(slot_of(&[], 0x1000), None);
    }
}
