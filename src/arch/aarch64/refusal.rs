//! What the processor has refused of an instruction that is there: a jump to no landing pad (BTI), a pointer with a wrong signature (PAC), an address
//! that is not aligned.
//!
//! Sources: Arm Architecture Reference Manual, D8.4.6 (branch target identification), C4.1; arch/arm64/kernel/traps.c, do_el0_bti() and do_el0_fpac().

use libc::BUS_ADRALN;

use super::Registers;
use super::access;
use super::call::{is_blr, register_of_blr};
use crate::arch::Refusal;

/// Instructions are so many bytes.
const CODE_ALIGNMENT: u64 = 4;
/// Where memory is accessed by the stack pointer.
const STACK_ALIGNMENT: u64 = 16;

const SIGILL: u32 = libc::SIGILL.cast_unsigned();
const SIGBUS: u32 = libc::SIGBUS.cast_unsigned();
const SIGSEGV: u32 = libc::SIGSEGV.cast_unsigned();

/// Nothing is mapped: include/uapi/asm-generic/siginfo.h.
const SEGV_MAPERR: i32 = 1;
/// ILL_ILLOPC: what is no instruction, and a jump to no landing pad.
const ILL_ILLOPC: i32 = 1;
/// ILL_ILLOPN: a pointer's signature, on processors that check it where it is taken away (FEAT_FPAC), and nothing else.
const ILL_ILLOPN: i32 = 2;

/// What the processor has refused, if a signal with this code says that. `code`: the bytes at the program counter.
pub(crate) fn refusal(
    registers: &Registers,
    code: Option<&[u8]>,
    (signal, si_code): (u32, i32),
    address: u64,
) -> Option<Refusal> {
    let word = || Some(u32::from_le_bytes(*code?.first_chunk()?));
    match (signal, si_code) {
        (SIGILL, ILL_ILLOPC) => landing(registers.pstate >> 10 & 3, word()?),
        (SIGILL, ILL_ILLOPN) => signature(word()?),
        (SIGSEGV, SEGV_MAPERR) => {
            let is_return = address == registers.pc && address == registers.x30;
            (is_return && has_wrong_signature(address)).then_some(Refusal::SpoiltReturn)
        }
        (SIGBUS, BUS_ADRALN) if address == registers.pc && !address.is_multiple_of(CODE_ALIGNMENT) => {
            Some(Refusal::Code(CODE_ALIGNMENT))
        }
        (SIGBUS, BUS_ADRALN) if address == registers.sp && !address.is_multiple_of(STACK_ALIGNMENT) => {
            Some(Refusal::Stack(STACK_ALIGNMENT))
        }
        _ => None,
    }
}

/// `kind`: PSTATE.BTYPE, which the jump has set and every other instruction clears. The instruction itself is one that each processor has which
/// sets it (Armv8.5).
fn landing(kind: u64, word: u32) -> Option<Refusal> {
    const CALL: u64 = 0b10;
    let is_valid = is_hint(word) || is_plain(word) || access::decode(word).is_some();
    (kind != 0 && is_valid).then_some(Refusal::Landing { is_call: kind == CALL })
}

/// The space of hints, NOP, BTI and PACIASP among them: what is not allocated there does nothing.
fn is_hint(word: u32) -> bool {
    word & 0xffff_f01f == 0xd503_201f
}

/// What functions begin with, or continue with behind a landing pad, as far as it is easily told: ADR, ADD and SUB, MOVN, MOVZ and MOVK, jumps and
/// calls.
fn is_plain(word: u32) -> bool {
    let is_address = word & 0x1f00_0000 == 0x1000_0000;
    let is_sum = word & 0x1f80_0000 == 0x1100_0000;
    let is_move = word & 0x1f80_0000 == 0x1280_0000 && word >> 29 & 3 != 1;
    let is_return = word & 0xffff_fc1f == 0xd65f_0000;
    let is_jump = word & 0x7c00_0000 == 0x1400_0000 || is_blr(word) || is_br(word) || is_return;
    is_address || is_sum || is_move || is_jump
}

/// BR
fn is_br(word: u32) -> bool {
    word & 0xffff_fc1f == 0xd61f_0000
}

/// BRAAZ and BRABZ, BRAA and BRAB: they check a signature first.
fn is_signed_br(word: u32) -> bool {
    word & 0xffff_f81f == 0xd61f_081f || word & 0xffff_f800 == 0xd71f_0800
}

/// An instruction that checks the signature of a pointer.
fn signature(word: u32) -> Option<Refusal> {
    // AUTIASP, AUTIAZ and those with the other key; RETAA, RETAB.
    let is_return = matches!(word, 0xd503_239f | 0xd503_23bf | 0xd503_23df | 0xd503_23ff | 0xd65f_0bff | 0xd65f_0fff);
    // AUTIA1716, AUTIB1716
    let is_hint = matches!(word, 0xd503_219f | 0xd503_21df);
    // AUTIA to AUTDB, and those without a modifier.
    let is_register = word & 0xffff_d000 == 0xdac1_1000;
    let is_call = register_of_blr(word).is_some() && !is_blr(word);
    // LDRAA, LDRAB
    let is_load = word & 0xff20_0400 == 0xf820_0400;
    let is_any = is_return || is_hint || is_register || is_signed_br(word) || is_call || is_load;
    is_any.then_some(Refusal::Signature { is_return })
}

/// Is an address one that a pointer becomes whose signature was wrong, on processors that take it away without a check of their own? They put
/// a mark into the bits that an address leaves free: 01 or 10, by the key, below the byte that they ignore.
fn has_wrong_signature(address: u64) -> bool {
    matches!(address >> 48 & 0xff, 0x20 | 0x40)
}

/// May this code have jumped to any address without a call?
pub(crate) fn may_jump(code: &[u8]) -> bool {
    let mut words = code.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
    words.any(|word| is_br(word) || is_signed_br(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: u64 = 0xaaaa_aaaa_5000;

    fn refused(signal: u32, si_code: i32, pstate: u64, word: u32) -> Option<Refusal> {
        let registers = Registers { pc: CODE, sp: 0xffff_0000_1000, pstate, ..Registers::default() };
        refusal(&registers, Some(&word.to_le_bytes()), (signal, si_code), CODE)
    }

    #[test]
    fn a_jump_by_a_pointer_needs_a_landing_pad() {
        let (by_call, by_jump) = (0x8000_0800, 0x8000_0c00);
        let of = |pstate, word| refused(SIGILL, ILL_ILLOPC, pstate, word);
        let call = Some(Refusal::Landing { is_call: true });
        for word in [
            0xd503_201f, // nop
            0xd503_249f, // bti j
            0xa9be_7bfd, // stp x29, x30, [sp, #-32]!
            0xd100_83ff, // sub sp, sp, #0x20
            0x9000_0080, // adrp
            0x5280_0020, // mov w0, #1
            0xd65f_03c0, // ret
            0x1400_0004, // b
        ] {
            assert_eq!(of(by_call, word), call, "{word:#x}");
        }
        assert_eq!(of(by_jump, 0xd503_245f), Some(Refusal::Landing { is_call: false }), "bti c");
        assert_eq!(of(0x8000_0000, 0xd503_201f), None, "no jump has led there");
        assert_eq!(of(by_call, 0), None, "udf: it is refused wherever it stands");
        assert_eq!(of(by_call, 0x0420_3000), None, "addvl, of vectors that a processor may lack");
        assert_eq!(refused(SIGILL, 3, by_call, 0xd503_201f), None, "another code");
        assert_eq!(refused(5, ILL_ILLOPC, by_call, 0xd503_201f), None, "another signal");
    }

    #[test]
    fn a_signature_is_checked_by_these() {
        let of = |word| refused(SIGILL, ILL_ILLOPN, 0, word);
        for word in [0xd503_23bf, 0xd503_23ff, 0xd503_239f, 0xd65f_0bff, 0xd65f_0fff] {
            assert_eq!(of(word), Some(Refusal::Signature { is_return: true }), "{word:#x}");
        }
        for word in [
            0xdac1_1020, // autia x0, x1
            0xdac1_33e0, // autiza x0
            0xd71f_0841, // braa x2, x1
            0xd61f_081f, // braaz x0
            0xd73f_0841, // blraa x2, x1
            0xf820_0420, // ldraa x0, [x1]
            0xd503_219f, // autia1716
        ] {
            assert_eq!(of(word), Some(Refusal::Signature { is_return: false }), "{word:#x}");
        }
        assert_eq!(of(0xdac1_0020), None, "pacia x0, x1, which signs");
        assert_eq!(of(0xd63f_0060), None, "blr x3");
        assert_eq!(of(0xd65f_03c0), None, "ret");
        assert_eq!(refused(SIGILL, ILL_ILLOPC, 0, 0xd503_23bf), None, "the code of an instruction that isn't there");
    }

    #[test]
    fn a_mark_in_an_address() {
        for address in [0x0020_ffff_f7e1_2344, 0x0040_aaaa_aaaa_0bc0, 0xab20_4141_4141_4141] {
            assert!(has_wrong_signature(address), "{address:#x}");
        }
        for address in [0, 0xffff_f7e1_2344, 0x1234_5678_9000, 0x0012_3456_7890_1230, 0xffff_8000_1234_5678] {
            assert!(!has_wrong_signature(address), "{address:#x}");
        }
        let of = |x30| {
            let pc = 0x0020_aaaa_aaaa_0100;
            refusal(&Registers { pc, x30, ..Registers::default() }, None, (SIGSEGV, SEGV_MAPERR), pc)
        };
        assert_eq!(of(0x0020_aaaa_aaaa_0100), Some(Refusal::SpoiltReturn));
        assert_eq!(of(0xaaaa_aaaa_0100), None, "a jump");
    }

    #[test]
    fn code_and_stacks_are_aligned() {
        let of = |pc, sp, address| {
            let registers = Registers { pc, sp, ..Registers::default() };
            refusal(&registers, None, (SIGBUS, BUS_ADRALN), address)
        };
        assert_eq!(of(CODE + 2, 0xffff_0000_1000, CODE + 2), Some(Refusal::Code(4)));
        assert_eq!(of(CODE, 0xffff_0000_1008, 0xffff_0000_1008), Some(Refusal::Stack(16)));
        assert_eq!(of(CODE, 0xffff_0000_1000, 0xffff_0000_1001), None, "an access");
        assert_eq!(of(CODE, 0xffff_0000_1000, CODE), None, "it is aligned");
    }

    #[test]
    fn a_jump_without_a_call() {
        let of = |words: &[u32]| may_jump(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
        for word in [0xd61f_0060, 0xd61f_081f, 0xd61f_0c1f, 0xd71f_0841] {
            assert!(of(&[0xd503_201f, word]), "{word:#x}");
        }
        // blr x3, ret, bl, b
        assert!(!of(&[0xd63f_0060, 0xd65f_03c0, 0x9400_0011, 0x1400_0011]));
    }
}
