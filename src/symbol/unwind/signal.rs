//! Signal frames on x86-64: what the kernel leaves on the stack when it starts a handler.
//!
//! `struct rt_sigframe` is a return address, then `struct ucontext` (arch/x86/include/asm/sigframe.h,
//! include/uapi/asm-generic/ucontext.h, arch/x86/include/uapi/asm/sigcontext.h).

use gimli::{Register, X86_64};

use super::{Registers, StackCopy};

/// In bytes from the ucontext.
mod at {
    pub(super) const FLAGS: u64 = 0;
    pub(super) const LINK: u64 = 8;
    pub(super) const REGISTERS: u64 = 40;
    pub(super) const SELECTORS: u64 = REGISTERS + 18 * 8;
    pub(super) const FPSTATE: u64 = REGISTERS + 23 * 8;
}

/// From `at::REGISTERS` on.
const ORDER: [Register; 17] = [
    X86_64::R8,
    X86_64::R9,
    X86_64::R10,
    X86_64::R11,
    X86_64::R12,
    X86_64::R13,
    X86_64::R14,
    X86_64::R15,
    X86_64::RDI,
    X86_64::RSI,
    X86_64::RBP,
    X86_64::RBX,
    X86_64::RDX,
    X86_64::RAX,
    X86_64::RCX,
    X86_64::RSP,
    X86_64::RA,
];

/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
const KNOWN_FLAGS: u64 = 0b111;

/// cs and ss of 64-bit code; the kernel writes 0 for gs and fs between them.
const SELECTORS: u64 = 0x002b_0000_0000_0033;

/// What the signal interrupted, if the stack at `sp`, in the code that a handler returned to, is a signal frame. Told by its
/// content, because not every libc describes that code (musl doesn't). A process that forges it only fools itself.
pub(super) fn interrupted(sp: u64, stack: &StackCopy) -> Option<Registers> {
    let word = |offset: u64| stack.read_word(sp.checked_add(offset)?);
    let is_frame = word(at::SELECTORS)? == SELECTORS && word(at::LINK)? == 0 && word(at::FLAGS)? & !KNOWN_FLAGS == 0;
    // The FPU's state lies above, aligned for its instructions.
    let fpstate = word(at::FPSTATE)?;
    let is_frame = is_frame && (fpstate == 0 || (fpstate > sp && fpstate.is_multiple_of(16)));
    if !is_frame {
        return None;
    }
    let place = |register| ORDER.iter().position(|other| *other == register);
    Some(Registers::from_fn(|register| word(at::REGISTERS + 8 * place(register)? as u64)))
}
