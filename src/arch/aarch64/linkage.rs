//! The stubs by which code calls functions of other files.

use object::elf::{R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT};

use super::call::slot_of_pair;

/// The relocations that give a slot the address of a function.
pub(crate) const LINKS: [u32; 2] = [R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT];

/// x16 and x17 are for linkers (AAPCS64, 6.1.1): the stub loads the address into the second one.
const LOADED: u32 = 17;

/// The address of the slot through which the stub at `start` jumps: `adrp x16, page` and `ldr x17, [x16, #offset]`, perhaps behind a landing
/// pad (`bti c`). `None` means that this is no such stub.
pub(crate) fn slot_of(stub: &[u8], start: u64) -> Option<u64> {
    let word = |at: usize| Some(u32::from_le_bytes(stub.get(at..at + 4)?.try_into().ok()?));
    let pair = |at: usize| slot_of_pair(word(at)?, word(at + 4)?, start.wrapping_add(at as u64), LOADED);
    pair(0).or_else(|| pair(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_jumps_through_a_slot() {
        // adrp x16, 0x11000; ldr x17, [x16, #0xfd8]; add x16, x16, #0xfd8; br x17
        let stub = [0x9000_0090_u32, 0xf947_ee11, 0x913f_6210, 0xd61f_0220];
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(slot_of(&bytes(&stub), 0x1640), Some(0x1_1fd8));
        let landing = [0xd503_245f, stub[0], stub[1], stub[3]];
        assert_eq!(slot_of(&bytes(&landing), 0x1640), Some(0x1_1fd8), "bti c");
        assert_eq!(slot_of(&bytes(&stub[1..]), 0x1640), None);
        assert_eq!(slot_of(&[], 0x1640), None);
    }
}
