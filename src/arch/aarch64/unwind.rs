//! What unwinding needs of arm64: DWARF's numbers of the registers, which of them functions keep, what signs return addresses, and what the
//! kernel leaves on the stack when it starts a signal handler.
//!
//! `struct rt_sigframe` is `struct siginfo`, then `struct ucontext` (arch/arm64/kernel/signal.c,
//! arch/arm64/include/uapi/asm/ucontext.h, arch/arm64/include/uapi/asm/sigcontext.h).

use gimli::{AArch64, Register, Vendor};

use super::Registers;

/// How many registers are followed: DWARF for the Arm 64-bit Architecture, 4.1.
pub(crate) const COUNT: usize = 33;

/// Where a frame's code stands.
pub(crate) const PROGRAM_COUNTER: Register = AArch64::PC;

/// The column whose rule says where the caller's code is.
pub(crate) const RETURN_ADDRESS: Register = AArch64::X30;

/// The stack pointer. A caller's is what the CFA is.
pub(crate) const STACK_POINTER: Register = AArch64::SP;

/// The frame pointer, of code that keeps one.
pub(crate) const FRAME_POINTER: Register = AArch64::X29;

/// Whose extensions of call frame information there may be: where return addresses are signed.
pub(crate) const VENDOR: Vendor = Vendor::AArch64;

/// The value of each followed register, or `None` where it isn't known.
pub(crate) type Values = [Option<u64>; COUNT];

/// The registers under DWARF's numbers.
pub(crate) fn registers(from: &Registers) -> [u64; COUNT] {
    let Registers { x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15, .. } = *from;
    let Registers { x16, x17, x18, x19, x20, x21, x22, x23, x24, x25, x26, x27, x28, x29, x30, sp, pc, .. } = *from;
    [
        x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15, x16, x17, x18, x19, x20, x21, x22, x23,
        x24, x25, x26, x27, x28, x29, x30, sp, pc,
    ]
}

/// A function keeps this register for its caller, as the ABI has it, where no rule says otherwise. A return address without a rule is still
/// where the call has put it, as in a function that calls none.
pub(crate) fn is_kept(register: Register) -> bool {
    (AArch64::X19.0..=AArch64::X30.0).contains(&register.0)
}

/// The address that is meant by a return address, as it is kept: it may be signed (PAC), in the bits that addresses of user space leave
/// free. Those above 48 bits have only programs that ask for them.
pub(crate) fn return_address(kept: u64) -> u64 {
    const ADDRESS_BITS: u32 = 48;
    if kept >> 55 & 1 != 0 { kept } else { kept & ((1 << ADDRESS_BITS) - 1) }
}

/// A caller's stack pointer is possible above a callee's: a call itself pushes nothing.
pub(crate) fn is_further_up(caller: u64, callee: u64) -> bool {
    caller >= callee
}

/// The program counter and the stack pointer of the caller where a call through a bad pointer has led to no code: its return
/// address is still in its register.
pub(crate) fn caller_of_bad_call(registers: &Values, _read: impl Fn(u64) -> Option<u64>) -> Option<(u64, u64)> {
    let value = |register: Register| registers.get(usize::from(register.0)).copied().flatten();
    Some((return_address(value(RETURN_ADDRESS)?), value(STACK_POINTER)?))
}

/// In bytes from the signal frame.
mod at {
    pub(super) const UCONTEXT: u64 = 128;
    pub(super) const FLAGS: u64 = UCONTEXT;
    pub(super) const LINK: u64 = UCONTEXT + 8;
    /// struct sigcontext: the fault's address, then the registers in the order of their numbers.
    pub(super) const REGISTERS: u64 = UCONTEXT + 176 + 8;
    pub(super) const RECORDS: u64 = UCONTEXT + 176 + 288;
}

/// FPSIMD_MAGIC, and the size of struct fpsimd_context: the first record behind the registers, on every processor that runs Linux.
const FIRST_RECORD: u64 = 528 << 32 | 0x4650_8001;

/// What the signal interrupted, if the stack at `sp`, in the code that a handler returned to, is a signal frame. Its content
/// shows it: the kernel describes that code nowhere. A process that forges it only fools itself.
pub(crate) fn interrupted(sp: u64, read: impl Fn(u64) -> Option<u64>) -> Option<Values> {
    let word = |offset: u64| read(sp.checked_add(offset)?);
    if word(at::RECORDS)? != FIRST_RECORD || word(at::LINK)? != 0 || word(at::FLAGS)? != 0 {
        return None;
    }
    let mut values = [None; COUNT];
    for (place, value) in (0_u64..).zip(&mut values) {
        *value = word(at::REGISTERS + 8 * place);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_return_address_is_stripped() {
        assert_eq!(return_address(0x002a_aaaa_aaaa_0714), 0xaaaa_aaaa_0714);
        assert_eq!(return_address(0xaaaa_aaaa_0714), 0xaaaa_aaaa_0714);
        assert_eq!(return_address(0xffff_8000_1234_5678), 0xffff_8000_1234_5678, "of the kernel");
    }

    /// As struct rt_sigframe: 128 bytes of siginfo, uc_mcontext at 176 of the ucontext, `sp` at 560 and records at 592 in all.
    #[test]
    fn a_signal_frame_has_the_registers() {
        const SP: u64 = 0x7000;
        let read = |magic: u64| {
            move |address: u64| match address - SP {
                128 | 136 => Some(0),
                offset @ 312..560 => Some(100 + (offset - 312) / 8),
                560 => Some(0x8000),
                568 => Some(0x40_0000),
                592 => Some(magic),
                _ => None,
            }
        };
        let values = interrupted(SP, read(0x0000_0210_4650_8001)).unwrap();
        assert_eq!((values[0], values[30]), (Some(100), Some(130)));
        assert_eq!((values[31], values[32]), (Some(0x8000), Some(0x40_0000)));
        assert_eq!(interrupted(SP, read(0x0000_0010_4553_5201)), None);
    }
}
