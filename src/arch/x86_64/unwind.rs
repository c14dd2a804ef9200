//! What unwinding needs of x86-64: DWARF's numbers of the registers, which of them functions keep, and what the kernel
//! leaves on the stack when it starts a signal handler.
//!
//! `struct rt_sigframe` is a return address, then `struct ucontext` (arch/x86/include/asm/sigframe.h,
//! include/uapi/asm-generic/ucontext.h, arch/x86/include/uapi/asm/sigcontext.h).

use gimli::{Register, Vendor, X86_64};

use super::Registers;

/// How many registers are followed: System V ABI for AMD64, figure 3.36. The program counter has the number of the return
/// address.
pub(crate) const COUNT: usize = 17;

/// Where a frame's code stands.
pub(crate) const PROGRAM_COUNTER: Register = X86_64::RA;

/// The column whose rule says where the caller's code is.
pub(crate) const RETURN_ADDRESS: Register = X86_64::RA;

/// The stack pointer. A caller's is what the CFA is.
pub(crate) const STACK_POINTER: Register = X86_64::RSP;

/// The frame pointer, of code that keeps one.
pub(crate) const FRAME_POINTER: Register = X86_64::RBP;

/// Whose extensions of call frame information there may be.
pub(crate) const VENDOR: Vendor = Vendor::Default;

/// The value of each followed register, or `None` where it isn't known.
pub(crate) type Values = [Option<u64>; COUNT];

/// The registers under DWARF's numbers.
pub(crate) fn registers(from: &Registers) -> [u64; COUNT] {
    let Registers { rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, .. } = *from;
    [rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip]
}

/// A function keeps this register for its caller, as the ABI has it, where no rule says otherwise. A return address without a
/// rule is not kept: there is none, and the frame is the outermost one.
pub(crate) fn is_kept(register: Register) -> bool {
    matches!(register, X86_64::RBX | X86_64::RBP | X86_64::R12 | X86_64::R13 | X86_64::R14 | X86_64::R15)
}

/// The address that is meant by a return address, as it is kept.
pub(crate) fn return_address(kept: u64) -> u64 {
    kept
}

/// A caller's stack pointer is possible above a callee's: each call pushes a return address.
pub(crate) fn is_further_up(caller: u64, callee: u64) -> bool {
    caller > callee
}

/// The program counter and the stack pointer of the caller where a call through a bad pointer has led to no code: its return
/// address is still on top of the stack.
pub(crate) fn caller_of_bad_call(registers: &Values, read: impl Fn(u64) -> Option<u64>) -> Option<(u64, u64)> {
    let top = registers.get(usize::from(STACK_POINTER.0)).copied().flatten()?;
    Some((read(top)?, top.checked_add(size_of::<u64>() as u64)?))
}

/// In bytes from the ucontext.
mod at {
    pub(super) const FLAGS: u64 = 0;
    pub(super) const LINK: u64 = 8;
    pub(super) const REGISTERS: u64 = 40;
    pub(super) const SELECTORS: u64 = REGISTERS + 18 * 8;
    pub(super) const FPSTATE: u64 = REGISTERS + 23 * 8;
}

/// From `at::REGISTERS` on.
const ORDER: [Register; COUNT] = [
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

/// What the signal interrupted, if the stack at `sp`, in the code that a handler returned to, is a signal frame. Its content
/// shows it, because not every libc describes that code (musl doesn't). A process that forges it only fools itself.
pub(crate) fn interrupted(sp: u64, read: impl Fn(u64) -> Option<u64>) -> Option<Values> {
    let word = |offset: u64| read(sp.checked_add(offset)?);
    let is_frame = word(at::SELECTORS)? == SELECTORS && word(at::LINK)? == 0 && word(at::FLAGS)? & !KNOWN_FLAGS == 0;
    // The FPU's state lies above, aligned for its instructions.
    let fpstate = word(at::FPSTATE)?;
    let is_frame = is_frame && (fpstate == 0 || (fpstate > sp && fpstate.is_multiple_of(16)));
    if !is_frame {
        return None;
    }
    let mut values = [None; COUNT];
    for (place, register) in (0_u64..).zip(ORDER) {
        if let Some(value) = values.get_mut(usize::from(register.0)) {
            *value = word(at::REGISTERS + 8 * place);
        }
    }
    Some(values)
}
